"""MVE's configuration file: what it means here, what is told, what is refused; and YAML as such."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from person import Person
from training import command, digest, here

from core import mvefile, yamltext
from core.modeldir import ModelDir
from core.options import OptionError
from core.values import file_text, read_options
from models.common import ROWS
from models.saehd import SAEHD

yaml = pytest.importorskip("yaml", reason="extra yaml")

MVE = """\
# as a user of MVE may have it
basic_param:
  name: someone
  res: 64
  archi: df-ud
  session_name: 2026-11-21
  maximum_n_backups: 3
  batch_size: 2
  use_fp16: false
model_properties: {face_type: f, ae_dims: 32, e_dims: 16, d_dims: 16, d_mask_dims: 16, lr_dropout: no, lr: 2e-5}
gan:
  gan_training: off
  gan_power: 0.1
  dims: 24
  patch_size: 8
augmentations:
  random_warp: n
  random_shadow: [src, dst]
color_augs:
  random_hsv_power: [5e-2, 5e-2]
dataset_param:
"""


def read(path: Path, text: str) -> tuple[dict[str, object], list[str]]:
    path.write_text(text, encoding="utf-8")
    return mvefile.read(path, SAEHD.rows, ROWS, "--config-training-file")


def test_what_the_words_of_mve_mean(tmp_path: Path) -> None:
    given, lines = read(tmp_path / "mve.yaml", MVE)
    values = SAEHD.resolve(given)
    assert (values["resolution"], values["archi"], values["max_backups"], values["session_name"]) == (
        64, "df-ud", 3, "2026-11-21",
    )  # fmt: skip
    assert values["lr"] == 2e-5 and values.kept["lr"] == 2e-5
    assert values["lr_dropout"] == "n" and values["random_warp"] is False and values["random_hsv_power"] == 0.05
    assert (values["gan_power"], values["gan_dims"], values["gan_patch_size"]) == (0.0, 24, 8)
    told = [line.partition(": ")[2].partition(" is ")[0] for line in lines]
    assert told == ["name", "use_fp16", "random_shadow", "gan_training"], lines


@pytest.mark.parametrize(
    ("text", "key", "value", "told"),
    [
        ("eyes_prio: true\nmouth_prio: false", "eyes_mouth_prio", True, "eyes_prio and mouth_prio are one option here"),
        ("eyes_prio: no\nmouth_prio: no", "eyes_mouth_prio", False, ""),
        ("eye_mouth_priority: on", "eyes_mouth_prio", True, ""),
        ("random_flip: true\nrandom_dst_flip: n", "random_src_flip", True, ""),
        ("random_flip: true\nrandom_dst_flip: n", "random_dst_flip", False, ""),
        ("true_face_power: 1e-3", "true_face_power", 0.001, ""),
        ("lr_dropout: yes", "lr_dropout", "y", ""),
        ("lr_dropout: 'n'", "lr_dropout", "n", ""),
        ("adabelief: OFF", "adabelief", False, ""),
        ("session_name:", "session_name", "", ""),
        ("session_name: 12:30", "session_name", None, ""),
        ("gan: {power: .1}", "gan_power", 0.1, ""),
    ],
)
def test_spellings(tmp_path: Path, text: str, key: str, value: object, told: str) -> None:
    given, lines = read(tmp_path / "mve.yml", text)
    if value is None:
        with pytest.raises(OptionError, match="session_name: got '12:30'"):
            SAEHD.resolve(given)
        return
    assert SAEHD.resolve({"archi": "df", **given})[key] == value
    assert [told in line for line in lines] == [True] * bool(told)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gan: {gan_pwer: 1}", "w.yaml: 'gan_pwer' is not an option .* Did you mean gan_power"),
        ("gan_power: 1\ngan_power: 2", "gan_power stands there twice, again on line 2"),
        ("a: {gan_power: 1}\nb: {gan_power: 2}", "gan_power stands there twice, as '1' and '2'"),
        ("max_backups: 1\nmaximum_n_backups: 2", "max_backups stands there twice"),
        ("gan_power: [0.1, 0.2]", "gan_power: got a list, allowed is one value, which counts for src and dst"),
        ("eyes_prio: 7", "eyes_prio: got '7', allowed is true or false"),
        ("- 1", "expected a table"),
        ("a: *b", "undefined alias 'b' on line 1"),
        ("&a [*a]", "nested too deeply"),
        ("[" * 3_000, "nested too deeply"),
        ('"\\UFFFFFFFF": 1', "too large"),
        ("? [a]\n: 1", "a key is no text on line 1"),
        ("a: 1\n---\na: 2", "on line 2"),
        ("#" * (1 << 18), "larger than"),
        ("", "expected a table"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read(tmp_path / "w.yaml", text)


def test_no_tag_is_obeyed(tmp_path: Path) -> None:
    trap = tmp_path / "pwned"
    given, _ = read(tmp_path / "w.yaml", f'session_name: !!python/object/apply:os.system "touch {trap}"')
    assert given == {"session_name": f"touch {trap}"} and not trap.exists()


def test_damaged_files_are_errors_and_nothing_else() -> None:
    chance, whole = random.Random(6), MVE.encode()
    bits = [b"&a ", b"*a", b"!!", b'"\\UFFFFFFFF"', b"- ", b"? ", b": ", b"{", b"]", b"%TAG ! x\n", b"---\n", b"\xff"]
    for _ in range(400):
        raw = bytearray(whole[: chance.randint(1, len(whole))])
        for _ in range(chance.randint(1, 5)):
            at = chance.randint(0, len(raw))
            raw[at : at + chance.randint(0, 3)] = chance.choice(bits)
        try:
            yamltext.parse(bytes(raw))
        except yamltext.YamlError as error:
            assert str(error).isprintable() and len(str(error)) < 400


def test_what_is_written_is_read_as_it_was_by_us_and_by_others(tmp_path: Path) -> None:
    values = SAEHD.resolve({"gan_power": 1e-05, "session_name": "näme no", "lr_dropout": "n", "max_backups": 0})
    path = tmp_path / "c.yaml"
    given, lines = read(path, mvefile.text(SAEHD.rows, values, "x_SAEHD"))
    assert not lines and SAEHD.resolve(given) == values and set(given) == {r.key for r in SAEHD.rows if not r.once}
    elsewhere = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert elsewhere["gan"]["gan_power"] == 1e-05 and elsewhere["model_properties"]["lr_dropout"] == "n"
    assert elsewhere["basic_param"]["maximum_n_backups"] == 0 and set(elsewhere) <= set(mvefile.SECTIONS)
    for name in ("o.yaml", "o.json"):
        (tmp_path / name).write_text(file_text(tmp_path / name, dict(values)), encoding="utf-8")
        assert SAEHD.resolve(read_options(tmp_path / name)) == values


def test_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(OptionError, match=r"reading YAML needs PyYAML. To install: pip install -e \"\.\[yaml\]\""):
        read(tmp_path / "w.yaml", "a: 1")
    assert file_text(tmp_path / "o.yml", {"a": 0.5, "b": "n"}) == 'a: 0.5\nb: "n"\n'


def test_a_training_from_the_file_keeps_its_own_and_goes_on_from_it(faces: Path, tmp_path: Path) -> None:
    config, model = tmp_path / "mve.yaml", tmp_path / "model"
    config.write_text(MVE, encoding="utf-8")
    words = ["--no-preview", "--exit-at-target", "--force-model-name", "a", "--auto-gen-config"]
    first = ["--config-training-file", str(config), "--target-iter", "1", "--set", "random_warp=y"]
    done = here(command(faces, model, *words, *first, "--dry-run", small=False))
    assert done.returncode == 0 and "archi: df-ud" in done.stdout and not model.exists(), done.stderr
    done = here(command(faces, model, *words, *first, small=False))
    assert done.returncode == 0 and "use_fp16 is left out" in done.stdout, done.stderr
    assert "--config-training-file" not in done.stdout.partition("The same run again")[2].partition("\n")[0]
    data = ModelDir(model, "a", "SAEHD").read_data()
    assert data.options["random_warp"] is True and data.options["resolution"] == 64, "--set counts before the file"
    kept = model / "a_SAEHD_configuration_file.yaml"
    assert "random_warp: true" in kept.read_text() and 'session_name: "2026-11-21"' in kept.read_text()
    kept.write_text("# mine\nbasic_param: {target_iter: 2, batch_size: 3}\n")
    done = here(command(faces, model, *words, small=False))
    assert done.returncode == 0 and ModelDir(model, "a", "SAEHD").read_data().options["batch_size"] == 3, done.stderr
    assert kept.read_text().startswith("# mine"), "a file that says so already is left as it is"
    before = digest(model)
    for wrong, message in (("face_type: wf", "this model was made with f; got wf"), ("batch_size: 1e3", "got '1e3'")):
        config.write_text(wrong)
        done = here(command(faces, model, *words, *first[:2], small=False))
        assert done.returncode == 2 and message in done.stderr and digest(model) == before
    done = here(command(faces, model, *words, "--config-training-file", str(tmp_path / "none.yaml"), small=False))
    assert done.returncode == 2 and "there is no such file" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_mves_questions_in_a_terminal(faces: Path, copy: Path, person: list[Person]) -> None:
    (copy / "new_SAEHD_configuration_file.yaml").write_text("gan: {gan_dims: 24}\n")
    me = Person(command(faces, copy, "--auto-gen-config", "--target-iter", "4", "--exit-at-target", small=False))
    person.append(me)
    me.answers("[0] : new - latest", "")
    me.answers("[y] Do you want to read training options from file? ( y/n ?:help )", "?")
    me.answers("[y] Do you want to read training options from file? ( y/n ?:help )", "")
    me.answers("[n] Do you want to reset iterations counter and loss graph? ( y/n ?:help )", "<")
    me.answers("[y] Do you want to read training options from file?", "y")
    me.answers("[n] Do you want to reset iterations counter and loss graph?", "y")
    me.child.expect_exact("count from 0 again, at 3 iterations")
    me.child.expect_exact("Reached target iteration.")
    assert me.code() == 0
    data = ModelDir(copy, "new", "SAEHD").read_data()
    assert data.iter == 4 and len(data.loss_history) == 4 and data.options["gan_dims"] == 24
