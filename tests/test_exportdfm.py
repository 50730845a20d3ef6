"""exportdfm as a verb: processes, questions, wrong usage, broken models; only the .dfm is ever written."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests_support import ROOT
from training import ENVIRONMENT, digest, run

if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
    pytest.skip('needs onnx and onnxruntime: pip install -e ".[dfm]"', allow_module_level=True)

import onnx

from core import dflfile
from main import main
from mainscripts import exportdfm
from models import dfm

DFM = "new_SAEHD_model.dfm"


def words(folder: Path, *more: str) -> list[str]:
    return ["exportdfm", "--model-dir", str(folder), "--model", "SAEHD", *more]


def told(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_a_process_writes_the_file_and_nothing_else(copy: Path) -> None:
    folder = copy.rename(copy.parent / "mö del 火")
    before = digest(folder)
    done = run([sys.executable, "-W", "error", str(ROOT / "main.py"), *words(folder, "--set", "quantize=y")])
    assert done.returncode == 0 and done.stderr == ""
    after = digest(folder)
    assert after.pop(DFM) and after == before
    assert told(folder / DFM)["iteration"] == "3" and told(folder / DFM)["weights"] == "float16"
    for line in (r"out_face_mask:0 +\d\.\de-\d\d", r"out_celeb_face:0", r"out_celeb_face_mask:0", f"Written: .*{DFM}"):
        assert re.search(line, done.stdout), done.stdout
    assert "synthetic media" in done.stdout


@pytest.mark.slow
def test_questions_in_a_terminal(copy: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="pexpect drives a pseudo-terminal (test extra)")
    if sys.platform == "win32":
        pytest.skip("pseudo-terminals are POSIX")
    command = [str(ROOT / "main.py"), *words(copy)]
    me = pexpect.spawn(
        sys.executable, command, cwd=str(ROOT), env={**ENVIRONMENT, "TERM": "xterm"}, encoding="utf-8", timeout=40,
        dimensions=(40, 160),
    )  # fmt: skip
    try:
        for question, answer in [
            ("[0] : new - latest", "somebody else"),
            ("No model 'somebody else' of class SAEHD", "0"),
            ("[n] Export quantized? ( y/n ?:help ) :", "?"),
            ("half as large", "maybe"),
            ("allowed is y or n", "y"),
        ]:
            me.expect_exact(question)
            me.send(answer + "\r")
        me.expect_exact("Written: ")
        me.expect(pexpect.EOF)
    finally:
        me.close(force=True)
    assert me.exitstatus == 0 and told(copy / DFM)["weights"] == "float16"


def test_answers_from_standard_input(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for answers, code in (("\nn\n", 0), ("\ny\n", 0), ("nobody\n", 1), ("\nmaybe\n", 2), ("\n", 2)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        assert main(words(copy, "--ask")) == code
    assert told(copy / DFM)["weights"] == "float16"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert main(words(copy, "--ask", "--set", "quantize=no")) == 0, "answered in advance, not asked"
    assert told(copy / DFM)["weights"] == "float32"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "quantize=perhaps"], 2, "quantize: got 'perhaps', allowed is y or n"),
        (["--set", "quantise=y"], 2, "Did you mean quantize"),
        (["--model", "SAEHDX"], 2, "--model: got 'SAEHDX', allowed is SAEHD"),
        (["--force-model-name", "nobody"], 1, "No model 'nobody' of class SAEHD in .*Saved there: new"),
        (["--force-model-name", "a/b"], 2, "allowed"),
        (["--model-dir", "/nowhere/at all"], 1, "No saved model of class SAEHD in /nowhere/at all: train one first"),
    ],
)
def test_wrong_usage_changes_nothing(
    trained: Path, more: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(trained)
    assert main(words(trained, *more)) == code
    said = capsys.readouterr().err
    assert re.search(message, said) and said.startswith("Error: ") and said.count("\n") == 1
    assert digest(trained) == before


def no_encoder(folder: Path) -> None:
    (folder / "new_SAEHD_encoder.npy").unlink()


def broken_encoder(folder: Path) -> None:
    (folder / "new_SAEHD_encoder.npy").write_bytes(b"\0" * 100)


def smaller_encoder(folder: Path) -> None:
    path = folder / "new_SAEHD_encoder.npy"
    part = dflfile.load(path)
    dflfile.write_bytes(path, dflfile.dumps({name: array[..., :-1] for name, array in part.items()}))


def broken_record(folder: Path) -> None:
    (folder / "new_SAEHD_data.dat").write_bytes(b"not a record")


def record(folder: Path, **changes: object) -> None:
    path = folder / "new_SAEHD_data.dat"
    stored = dflfile.load(path)
    stored["iter"] = changes.pop("iter", stored["iter"])
    stored["options"] |= changes
    dflfile.write_bytes(path, dflfile.dumps(stored))


def odd_option(folder: Path) -> None:
    record(folder, archi="dx")


def taken_name(folder: Path) -> None:
    (folder / DFM).mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_encoder, r"new_SAEHD_encoder\.npy missing in .*Restore"),
        (broken_encoder, r"new_SAEHD_encoder\.npy"),
        (smaller_encoder, r"encoder\.npy: down1/downs_0/conv1/weight:0: expected \(5, 5, 3, 16\) float32, found"),
        (broken_record, r"new_SAEHD_data\.dat cannot be read"),
        (odd_option, r"new_SAEHD_data\.dat: no network can be built of it: .*archi"),
        (taken_name, r"new_SAEHD_model\.dfm.*: Is a directory"),
    ],
)
def test_models_that_cannot_be_exported(
    copy: Path, harm: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(copy)
    before = digest(copy)
    assert main(words(copy)) == 1
    said = capsys.readouterr().err
    assert re.search(message, said) and said.startswith("Error: ") and "Traceback" not in said
    assert digest(copy) == before


def test_an_old_file_survives_a_new_one_that_is_wrong(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / DFM).write_bytes(b"the old one")
    before = digest(copy)
    monkeypatch.setattr(dfm, "LIMITS", {False: 0.0, True: 0.0})
    assert main(words(copy, "--set", "quantize=y")) == 1
    assert "off what the network draws, allowed is 0" in capsys.readouterr().err
    assert digest(copy) == before


def test_a_model_saved_meanwhile_is_read_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load, saves = exportdfm._read_once, [3, 4]

    def load_and_save(*arguments: object) -> object:
        task = load(*arguments)  # type: ignore[arg-type]
        if saves:
            record(copy, iter=saves.pop(0) + 10)
        return task

    monkeypatch.setattr(exportdfm, "_read_once", load_and_save)
    assert main(words(copy)) == 0
    assert capsys.readouterr().out.count("reading it again") == 2 and told(copy / DFM)["iteration"] == "14"
    saves[:] = range(10)
    assert main(words(copy)) == 1 and "changes again and again" in capsys.readouterr().err


def test_missing_packages_are_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exportdfm, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(words(trained)) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"Error: exportdfm needs onnxruntime\. .*6_export_SAEHD_as_dfm\.sh.*pip install onnxruntime\n", said
    )
    launcher = re.search(r"bash (\S+)", said)
    assert launcher and (ROOT / launcher[1]).is_file()


def test_packages_that_do_not_work_are_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> int:
        raise ImportError("DLL load failed", name="onnxruntime")

    monkeypatch.setattr(exportdfm, "_export", broken)
    assert main(words(trained)) == 1
    assert capsys.readouterr().err.startswith("Error: onnxruntime is installed but cannot be loaded: DLL load failed.")


def test_a_record_without_iterations_is_told(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(copy, iter=0)
    assert main(words(copy)) == 0
    assert "new_SAEHD_data.dat counts 0 iterations: the weights beside it" in capsys.readouterr().out
