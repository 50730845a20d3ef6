"""Training as a user meets it: real processes, questions in a pseudo-terminal, signals, resumed runs, broken input."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_faces import make_folder
from screen import Screen
from tests_support import ROOT

from core import dflfile
from core.modeldir import ModelDir

pexpect = pytest.importorskip("pexpect", reason="pexpect drives a pseudo-terminal (test extra)")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")

SMALL = ["resolution=64", "face_type=f", "archi=df-ud", "ae_dims=32", "e_dims=16", "d_dims=16", "d_mask_dims=16"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
LINE = r"\[\d\d:\d\d:\d\d\]\[#(\d{6})\]\[\d{4}ms\](?:\[\d+\.\d{4}\]){2}"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wörk space")
    make_folder(folder / "data_src" / "aligned", 6)
    make_folder(folder / "data_dst" / "aligned", 6, first_seed=50)
    return folder


def command(faces: Path, model: Path, *more: str, small: bool = True) -> list[str]:
    sets = [word for pair in (*SMALL, "batch_size=2") for word in ("--set", pair)] if small else []
    return [
        sys.executable, str(ROOT / "main.py"), "train", "--model", "SAEHD", "--cpu-only", "--workers", "1",
        "--training-data-src-dir", str(faces / "data_src" / "aligned"),
        "--training-data-dst-dir", str(faces / "data_dst" / "aligned"), "--model-dir", str(model), *sets, *more,
    ]  # fmt: skip


def run(words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=120, cwd=ROOT, env=ENVIRONMENT, check=False
    )


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder after three headless iterations."""
    model = tmp_path_factory.mktemp("model")
    done = run(command(faces, model, "--no-preview", "--target-iter", "3", "--exit-at-target", "--seed", "7"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(LINE, done.stdout) and "Reached target iteration." in done.stdout
    return model


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_headless_run_leaves_dfls_files(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    parts = {f"new_SAEHD_{stem}.npy" for stem in ("encoder", "inter", "decoder_src", "decoder_dst", "src_dst_opt")}
    previews = {"new_SAEHD_preview_SAEHD.jpg", "new_SAEHD_preview_SAEHD masked.jpg"}
    assert names == parts | previews | {"new_SAEHD_data.dat", "new_SAEHD_summary.txt", "SAEHD_default_options.dat"}
    data = ModelDir(trained, "new", "SAEHD").read_data()
    assert data.iter == 3 and len(data.loss_history) == 3 and data.options["resolution"] == 64
    assert dflfile.load(trained / "SAEHD_default_options.dat")["archi"] == "df-ud"
    assert b"\x00numpy._core" not in (trained / "new_SAEHD_encoder.npy").read_bytes()


def test_a_seeded_run_is_the_same_stopped_or_not(faces: Path, trained: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    words = ["--no-preview", "--exit-at-target", "--seed", "7", "--target-iter"]
    assert run(command(faces, whole, *words, "3")).returncode == 0
    assert run(command(faces, halves, *words, "2")).returncode == 0
    done = run(command(faces, halves, *words, "3", small=False))
    assert done.returncode == 0 and "Model first run." not in done.stdout
    files = [f"new_SAEHD_{stem}.npy" for stem in ("encoder", "decoder_dst", "src_dst_opt")]
    for name in files:
        assert (whole / name).read_bytes() == (trained / name).read_bytes() == (halves / name).read_bytes(), name


def test_resumed_headless_with_another_option(faces: Path, copy: Path) -> None:
    done = run(command(faces, copy, "--no-preview", "--set", "batch_size=3", "--target-iter", "4", small=False))
    assert done.returncode == 0, done.stderr  # nobody can give a command: it ends at the target by itself
    data = ModelDir(copy, "new", "SAEHD").read_data()
    assert (data.iter, data.options["batch_size"], data.options["resolution"]) == (4, 3, 64)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "resolution=128"], 2, "made with 64"),
        (["--set", "batch_size=0"], 2, "batch_size: got '0', allowed is a whole number from 1"),
        (["--set", "batchsize=4"], 2, "Did you mean batch_size"),
        (["--set", "gan_power=0.1"], 2, "gan_power"),
        (["--force-gpu-idxs", "9"], 2, "allowed"),
        (["--model", "SAEHDX"], 2, "SAEHD"),
        (["--execute-program", "1", "print()"], 2, "refused|not supported"),
        (["--reinit", "inter_AB"], 2, "encoder / inter"),
        (["--training-data-src-dir", "/nowhere/at all"], 1, "nowhere"),
        (["--force-model-name", "a/b"], 2, "allowed"),
        (["--force-model-name", "n" * 101], 2, "101 letters"),
        (["--seed", "99999999999999999999"], 2, "whole number from 0"),
        (["--workers", "1000000"], 2, "from 0 to 64"),
        (["--model-dir", ""], 2, "empty path"),
        (["--target-iter", "-4"], 2, "target_iter"),
    ],
)
def test_wrong_arguments_change_nothing(faces: Path, trained: Path, more: list[str], code: int, message: str) -> None:
    before = digest(trained)
    words = command(faces, trained, "--no-preview", *more, small=False)
    if "--force-gpu-idxs" in more:
        words.remove("--cpu-only")
    done = run(words)
    assert done.returncode == code and re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr and digest(trained) == before


def test_broken_models_are_refused_by_name(faces: Path, copy: Path) -> None:
    encoder = copy / "new_SAEHD_encoder.npy"
    sound = encoder.read_bytes()
    part = dflfile.load(encoder)
    first = next(iter(part))
    for content, message in [
        (b"\0" * len(sound), r"new_SAEHD_encoder\.npy"),
        (dflfile.dumps({**part, first: part[first][..., :-1]}), re.escape(first)),
        (dflfile.dumps({key: part[key] for key in list(part)[1:]}), re.escape(first)),
        (None, r"new_SAEHD_encoder\.npy missing.*--reinit encoder"),
    ]:
        encoder.unlink(missing_ok=True)
        if content is not None:
            encoder.write_bytes(content)
        before = digest(copy)
        done = run(command(faces, copy, "--no-preview", small=False))
        assert done.returncode == 1 and re.search(message, done.stderr, re.S), done.stderr
        assert "Traceback" not in done.stderr and digest(copy) == before
    done = run(command(faces, copy, "--no-preview", "--reinit", "encoder", "--target-iter", "4", small=False))
    assert done.returncode == 0 and "encoder starts anew" in done.stdout


def test_a_record_without_iterations_does_not_cost_the_weights(faces: Path, copy: Path) -> None:
    path = copy / "new_SAEHD_data.dat"
    record = dflfile.load(path)
    for damaged, message in [({}, "cannot be read"), ({**record, "iter": 0}, "would overwrite")]:
        path.write_bytes(dflfile.dumps(damaged))
        before = digest(copy)
        done = run(command(faces, copy, "--no-preview", "--target-iter", "4", small=False))
        assert done.returncode == 1 and message in done.stderr and digest(copy) == before, done.stderr


def test_usage_errors_make_no_folder(faces: Path, tmp_path: Path) -> None:
    for more in (["--set", "batch_size=x"], ["--ask"], ["--reinit", "foo"]):
        done = run(command(faces, tmp_path / "m", "--no-preview", *more, small=more != ["--ask"]))
        assert done.returncode == 2, done.stderr
        assert not (tmp_path / "m").exists()


def test_a_name_with_an_underscore_finds_its_model(faces: Path, copy: Path) -> None:
    for path in list(copy.glob("new_SAEHD_*")):
        path.rename(path.with_name("my_" + path.name))
    words = command(faces, copy, "--no-preview", "--force-model-name", "my_new", "--target-iter", "4", small=False)
    done = run(words)
    assert done.returncode == 0 and ModelDir(copy, "my_new", "SAEHD").read_data().iter == 4, done.stderr


def test_useless_facesets_are_told_before_anything_is_made(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    half = make_folder(tmp_path / "half", 2, face_type="half_face")
    for folder, message in [(tmp_path / "empty", "empty"), (half, "half_face.*whole_face|whole_face.*half_face")]:
        words = command(faces, tmp_path / "model", "--no-preview", "--training-data-dst-dir", str(folder))
        words[words.index("face_type=f")] = "face_type=wf"
        done = run(words)
        assert done.returncode == 1 and re.search(message, done.stderr), done.stderr
        assert not list((tmp_path / "model").glob("*")) and "Traceback" not in done.stderr


def test_answers_from_standard_input(faces: Path, tmp_path: Path) -> None:
    answers = [
        "mine",
        "0",
        "n",
        "2",
        "n",
        "y",
        "2",
        "64",
        "f",
        "df-ud",
        "32",
        "16",
        "16",
        "16",
        "",
        "",
        "",
        "",
        "",
        "?",
        "",
    ]
    words = command(faces, tmp_path, "--ask", "--no-preview", "--exit-at-target", small=False)
    done = run(words, "\n".join([*answers, ""]) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ModelDir(tmp_path, "mine", "SAEHD").read_data().options["ae_dims"] == 32
    before = digest(tmp_path)
    wrong = run(words, "other\n25\n")
    assert wrong.returncode == 2 and "Autobackup every N hour" in wrong.stderr and "0 to 24" in wrong.stderr
    few = run(words, "other\n0\n")
    assert few.returncode == 2 and "Write preview history" in few.stderr and digest(tmp_path) == before


class Person:
    """Somebody at a terminal."""

    def __init__(self, words: list[str]) -> None:
        environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        self.child = pexpect.spawn(
            words[0], words[1:], cwd=str(ROOT), env={**environment, "TERM": "xterm"}, encoding="utf-8", timeout=30,
            dimensions=(40, 140),
        )  # fmt: skip

    def answers(self, question: str, answer: str) -> None:
        self.child.expect_exact(question)
        self.child.send(answer + "\r")

    def code(self) -> int:
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus)


@pytest.fixture
def person() -> Iterator[list[Person]]:
    people: list[Person] = []
    yield people
    for one in people:
        one.child.close(force=True)


def test_from_the_first_question_to_enter(faces: Path, tmp_path: Path, person: list[Person]) -> None:
    me = Person(command(faces, tmp_path, small=False))
    person.append(me)
    me.answers("Enter a name of a new model", "my_face")
    me.answers("Autobackup every N hour ( 0..24 ?:help )", "?")
    for answer in ("x", "0"):
        me.answers("Autobackup every N hour ( 0..24 ?:help )", answer)
    for question in ("Write preview history", "Target iteration", "Flip SRC", "Flip DST"):
        me.answers(question, "")
    pairs = [
        ("Batch_size", "2"),
        ("Resolution ( 64-640 ?:help )", "64"),
        ("Face type", "wf"),
        ("AE architecture", "df"),
    ]
    pairs += [(f"{kind} dimensions ( ", number) for kind, number in (("AutoEncoder", "32"), ("Encoder", "16"))]
    pairs += [
        ("Decoder dimensions", "16"),
        ("Decoder mask dimensions", "16"),
        ("Masked training ( y/n ?:help )", "yes"),
    ]
    pairs += [("Eyes and mouth priority", ""), ("Uniform yaw", ""), ("Blur out mask", ""), ("AdaBelief", "")]
    pairs += [("learning rate dropout", "n"), ("random warp", ""), ("gradient clipping", "")]
    for question, answer in pairs:
        me.answers(question, answer)
    me.child.expect_exact('Starting. Press "Enter" to stop training and save model.')
    me.child.expect(r"\[#000003\]")
    me.child.send("\r")
    assert me.code() == 0
    data = ModelDir(tmp_path, "my face", "SAEHD").read_data()
    assert data.iter >= 3 and data.options["archi"] == "df" and data.options["face_type"] == "wf"


def test_two_seconds_to_override(faces: Path, copy: Path, person: list[Person]) -> None:
    me = Person(command(faces, copy, small=False))
    person.append(me)
    me.answers("[0] : new - latest", "")
    me.child.expect_exact("Press enter in 2 seconds to override model settings.")
    me.child.send("\r")
    for question, answer in [
        ("Autobackup", ""),
        ("Write", ""),
        ("Target", "5"),
        ("SRC", ""),
        ("DST", ""),
        ("Batch", "3"),
    ]:
        me.answers(question, answer)
    for question in ("Eyes", "Uniform", "Blur", "AdaBelief", "dropout", "warp", "clipping"):
        me.answers(question, "")
    me.child.expect_exact("Reached target iteration.")
    me.child.send("\r")
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().options["batch_size"] == 3


def test_control_c_at_a_question_changes_nothing(faces: Path, copy: Path, person: list[Person]) -> None:
    before = digest(copy)
    me = Person(command(faces, copy, small=False))
    person.append(me)
    me.child.expect_exact("Choose one of saved models")
    me.child.expect_exact(" : ")
    time.sleep(0.3)
    me.child.sendintr()
    assert me.code() == 130 and digest(copy) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_leave(faces: Path, copy: Path, number: int, person: list[Person]) -> None:
    me = Person(command(faces, copy, "--silent-start", "--set", "target_iter=0", small=False))
    person.append(me)
    me.child.expect(r"\[#000006\]")
    me.child.kill(number)
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().iter >= 6


def test_a_missing_part_is_asked_about(faces: Path, copy: Path, person: list[Person]) -> None:
    (copy / "new_SAEHD_inter.npy").unlink()
    before = digest(copy)
    me = Person(command(faces, copy, "--silent-start", small=False))
    person.append(me)
    me.answers("[n] inter is missing. Start it anew? ( y/n ?:help )", "n")
    assert me.code() == 1 and digest(copy) == before
    me = Person(command(faces, copy, "--silent-start", "--target-iter", "4", "--exit-at-target", small=False))
    person.append(me)
    me.answers("[n] inter is missing. Start it anew?", "y")
    me.child.send("\r\r")  # one Enter too many does not stop what has not begun
    me.child.expect_exact("inter starts anew")
    me.child.expect_exact("Reached target iteration.")
    assert me.code() == 0 and ModelDir(copy, "new", "SAEHD").read_data().iter == 4


def children(pid: int) -> list[int]:
    """Child processes, whichever thread started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_is_replaced_and_a_killed_trainer_leaves_nothing(
    faces: Path, copy: Path, person: list[Person]
) -> None:
    me = Person(command(faces, copy, "--silent-start", "--set", "target_iter=0", small=False))
    person.append(me)
    me.child.expect(r"\[#000005\]")
    workers = children(me.child.pid)
    os.kill(workers[0], signal.SIGKILL)
    me.child.expect("Warning: .*worker")
    me.child.expect(r"\[#0000[2-9]\d\]")
    workers = children(me.child.pid)
    assert workers
    me.child.kill(signal.SIGKILL)
    me.code()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    done = run(command(faces, copy, "--no-preview", "--target-iter", "5", small=False))
    assert done.returncode == 0, done.stderr


def test_debug_shows_samples_and_trains_nothing(faces: Path, tmp_path: Path) -> None:
    done = run(command(faces, tmp_path / "m", "--debug", "--no-preview", "--force-model-name", "look"))
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "m").iterdir())
    assert names == [f"look_SAEHD_preview_samples {side}.jpg" for side in ("dst", "src")]


def test_the_window_from_first_picture_to_enter(faces: Path, copy: Path, screen: Screen) -> None:
    words = command(faces, copy, "--set", "target_iter=0", small=False)
    log = copy / "log.txt"
    with log.open("w") as out:
        trainer = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={**ENVIRONMENT, "DISPLAY": screen.environ["DISPLAY"]},
        )  # fmt: skip
    try:
        for key, proof in [("s", "]["), ("b", "Backup made"), ("p", ""), ("space", ""), ("l", ""), ("Return", "Done.")]:
            screen.press(key)
            deadline = time.monotonic() + 30
            while proof not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert proof in log.read_text(), log.read_text()
        assert trainer.wait(30) == 0
    finally:
        trainer.kill()
        trainer.wait()
    assert ModelDir(copy / "new_SAEHD_autobackups" / "01", "new", "SAEHD").read_data().iter >= 3
    assert ModelDir(copy, "new", "SAEHD").read_data().iter > 3
