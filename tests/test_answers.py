"""Options from a file and into one, the command line that gives the same run, a run that is only shown."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from training import command, digest, here

from core.modeldir import ModelDir
from core.options import OptionError
from core.values import read_options


def test_sections_are_laid_flat_and_numbers_stay_numbers(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"batch_size": 8, "gan": {"gan_power": 0.1, "gan_dims": "24"}, "clipgrad": true}')
    assert read_options(path) == {"batch_size": 8, "gan_power": 0.1, "gan_dims": "24", "clipgrad": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON"),
        (b"[1]", "expected a table"),
        (b'{"a": [1]}', "a: got list"),
        (b'{"a": 1, "s": {"a": 2}}', "a stands there twice, as 1 and 2"),
        (b'{"s": {"a": {}}}', "a: got dict"),
        (b"[" * 100_000, "is no JSON"),
        (b" " * (1 << 20) + b"{}", "expected a table"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "options.json"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        read_options(path)
    with pytest.raises(OptionError, match="cannot be read"):
        read_options(tmp_path / "missing.json")


def test_the_told_command_gives_the_same_model(faces: Path, tmp_path: Path) -> None:
    """Options partly from a file; the same ones then by the told command alone, and by the saved file."""
    saved, part = tmp_path / "all options.json", tmp_path / "part.json"
    part.write_text('{"gan": {"gan_power": 0.1, "gan_patch_size": 8}, "batch_size": 4, "random_warp": "n"}')
    first = tmp_path / "model 1"
    words = ["--options", str(part), "--save-options", str(saved), "--target-iter", "2", "--exit-at-target"]
    done = here(command(faces, first, *words, "--no-preview", "--force-model-name", "mine"))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("The same run again: ")]
    told = shlex.split(line.partition(": ")[2])
    assert told[:3] == ["python", "main.py", "train"] and "--options" not in told and "gan_power=0.1" in told
    assert "batch_size=2" in told, "--set counts before the file"
    second = tmp_path / "model 2"
    told = [str(second) if word == str(first) else word for word in told[1:]]
    second.mkdir()
    ModelDir(second, "other", "SAEHD").write_default_options({"clipgrad": True, "random_dst_flip": False})
    again = here(["", *told])
    assert again.returncode == 0, again.stderr
    parts = [{k: v for k, v in digest(folder).items() if k.endswith(".npy")} for folder in (first, second)]
    assert parts[0] == parts[1] and len(parts[0]) == 7
    options = json.loads(saved.read_bytes())
    assert options["gan_power"] == 0.1 and options["batch_size"] == 2 and options["random_warp"] is False
    third = command(faces, tmp_path / "model 3", "--options", str(saved), "--dry-run", small=False)
    fourth = command(faces, first, "--options", str(saved), "--dry-run", small=False)
    for words in (third, fourth):
        shown = here(words)
        assert shown.returncode == 0 and "gan_patch_size: 8" in shown.stdout, shown.stderr


def test_a_dry_run_shows_and_writes_nothing(faces: Path, copy: Path, tmp_path: Path) -> None:
    before = digest(copy)
    done = here(command(faces, copy, "--dry-run", "--set", "batch_size=64", small=False))
    assert done.returncode == 0 and digest(copy) == before, done.stderr
    weights = sum(
        array.size
        for stem in ("encoder", "inter", "decoder_src", "decoder_dst")
        for array in (ModelDir(copy, "new", "SAEHD").read_part(stem) or {}).values()
    )
    assert f"Weights: {weights:,} (encoder " in done.stdout and "a batch of 64 faces " in done.stdout
    done = here(command(faces, tmp_path / "nowhere", "--dry-run"))
    assert done.returncode == 0 and not (tmp_path / "nowhere").exists()
    done = here(command(faces, tmp_path / "nowhere", "--dry-run", "--set", "mp_mode=full_t"))
    assert done.returncode == 2 and "mp_mode: got full_t, but TF32" in done.stderr
    done = here(command(faces, tmp_path / "nowhere", "--dry-run", "--processes", "2"))
    assert "in each of 2 processes" in done.stdout and "a batch of 1 faces " in done.stdout, done.stderr
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"batchsize": 4}')
    done = here(command(faces, tmp_path / "nowhere", "--dry-run", "--options", str(wrong)))
    assert done.returncode == 2 and "Did you mean batch_size" in done.stderr
    done = here(command(faces, tmp_path / "nowhere", "--dry-run", "--save-options", str(tmp_path / "no" / "file.json")))
    assert done.returncode == 1 and "--save-options" in done.stderr and "cannot be written" in done.stderr
