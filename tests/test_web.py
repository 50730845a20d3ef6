"""The preview page of a training: its process, its end in every way, its flags, and a real training seen through it."""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests_support import soon
from training import ENVIRONMENT, command, here, run

from core.events import (
    BackedUp,
    Command,
    Event,
    Failed,
    Noted,
    Previewed,
    Saved,
    Saving,
    Started,
    Stepped,
    Stopped,
    TargetReached,
    Warned,
)
from core.modeldir import ModelDir
from core.options import OptionError
from core.shown import without_secrets
from core.web import WebPage
from core.web_address import PORT, Address, open_socket, parse_address, parse_token, problem
from mainscripts import train_web


class Trainer:
    """The trainer's side of one page, and a visitor of it."""

    def __init__(self, **more: Any) -> None:
        self.commands: queue.Queue[Command] = queue.Queue()
        self.told: list[Event] = []
        self.lost: list[str] = []
        more = {"address": Address(port=0), **more}
        self.page = WebPage(self.commands, self.told.append, self.lost.append, **more)

    def ask(self, path: str, body: Any = None) -> tuple[int, bytes]:
        return ask(int(self.page.link.rpartition(":")[2].strip("/")), path, body)

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/state")[1]))


def ask(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {} if body is None else {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent = None if body is None else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, sent, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


@pytest.fixture
def trainer() -> Iterator[Callable[..., Trainer]]:
    made: list[Trainer] = []

    def make(**more: Any) -> Trainer:
        made.append(Trainer(**more))
        return made[-1]

    yield make
    for one in made:
        one.page.close()
    assert not any(one.page.alive for one in made)
    assert not any("preview page" in thread.name for thread in threading.enumerate())


def pages(colour: int = 90) -> Previewed:
    cells = [[np.full((32, 32, 3), colour, np.uint8)] * 5] * 2
    return Previewed(5, [("SAEHD", cells), ("SAEHD masked", cells)])


def test_what_a_training_says(trainer: Callable[..., Trainer]) -> None:
    rows: list[dict[str, Any]] = [{"key": "batch_size", "value": "4"}]
    one = trainer(options=lambda: rows)
    page = one.page
    page(Started("new_SAEHD", 2, 9, ("src_loss", "dst_loss"), np.ones((2, 2), np.float32)))
    page(pages())
    for iteration in range(3, 1003):
        page(Stepped(iteration, {"src_loss": 0.5, "dst_loss": float("nan")}, 10.0, 2.0))
    page(Saving(1002))
    page(Saved(1002, None, 5.0, Path("model")))
    page(BackedUp(1002, Path("autobackups") / "2026-11-21"))
    page(Noted("only for the log", aside=True))
    page(Warned("hot", "a trace"))
    page(pages(120))
    page(Previewed(5, [], history=True))
    page(Noted("last"))
    assert page.ready.wait(30) and soon(lambda: len(one.state()["words"]) == 4)
    assert one.told == [Noted(f"Preview page: {page.link}")]
    state = one.state()
    assert (state["iteration"], state["target"], state["drawn_at"], state["saving"]) == (1002, 9, 5, False)
    assert state["losses"] == ["src_loss 0.5000", "dst_loss nan"] and state["pages"] == ["SAEHD", "SAEHD masked"]
    assert "data 20%" in state["facts"] and "100 it/s" in state["facts"]
    told = [word["text"] for word in state["words"]]
    assert told == ["Saved at iteration 1002.", "Backup made: 2026-11-21", "hot", "last"]
    picture = cv2.imdecode(np.frombuffer(one.ask("/picture")[1], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 160, 3) and (picture == 120).all()
    assert json.loads(one.ask("/options")[1]) == rows
    given = [{"given": {"batch_size": "8"}}, {"given": {"a": "1"}}]  # one command in the end
    for body in ({"name": "save"}, {"name": "save"}, {"name": "stop"}, *given):
        assert one.ask("/command", body)[0] == 202
    wanted = [Command("save"), Command("stop"), Command("options", {"given": {"batch_size": "8", "a": "1"}})]
    assert soon(lambda: list(one.commands.queue) == wanted)
    page(TargetReached(1002))
    assert soon(lambda: one.state()["status"] == "target")
    page(Stopped(1002, "options"))
    assert soon(lambda: one.state()["status"] == "changing")
    rows[0]["value"] = "8"
    page(Started("new_SAEHD", 1002, 9, ("src_loss", "dst_loss"), np.ones((1002, 2), np.float32)))
    assert soon(lambda: one.state()["status"] == "training") and json.loads(one.ask("/options")[1]) == rows
    last: list[dict[str, Any]] = []
    serial = one.state()["serial"]
    waiting = threading.Thread(target=lambda: last.append(json.loads(one.ask(f"/state?after={serial}")[1])))
    waiting.start()
    page(Failed("no more"))
    waiting.join()
    word = last[0]["words"][-1]
    assert (word["number"], word["level"], word["text"]) == (5, "error", "no more")
    page(Stopped(1002, "error"))
    assert soon(lambda: one.state()["ended"] == "Training ended with an error.")
    page.close()
    with pytest.raises(ConnectionError):
        one.state()
    assert not one.lost


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_page_that_dies_or_hangs_costs_nothing(trainer: Callable[..., Trainer]) -> None:
    one = trainer()
    assert one.page.ready.wait(30)
    one.page._process.send_signal(signal.SIGTERM)  # when to end is the trainer's business
    one.page._process.send_signal(signal.SIGINT)
    assert one.state()["status"] == "starting"
    one.page._process.kill()
    assert soon(lambda: one.lost) and one.lost == ["the preview page has ended (SIGKILL)"]
    for _ in range(100):
        one.page(pages())
        one.page(Noted("still there"))
    stuck = trainer()
    assert stuck.page.ready.wait(30)
    stuck.page._process.send_signal(signal.SIGSTOP)
    large = Previewed(1, [("SAEHD", [[np.zeros((1000, 1000, 3), np.uint8)]])])
    for _ in range(50):  # more than any pipe holds
        stuck.page(large)
    start = time.monotonic()
    stuck.page.close(2.0)
    assert time.monotonic() - start < 20 and not stuck.page.alive and not stuck.lost


def test_ports(trainer: Callable[..., Trainer]) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert "in use" in problem(Address(port=port), "")
        one = trainer(address=Address(port=port))
        assert soon(lambda: one.lost) and "could not be opened: port" in one.lost[0] and "in use" in one.lost[0]
    assert problem(Address(port=port), "") == ""
    try:
        usual = open_socket("127.0.0.1", PORT)
    except OSError:  # somebody's training
        usual = socket.socket()
    with usual:
        one = trainer(address=Address())
        assert one.page.ready.wait(30) and int(one.page.link.rpartition(":")[2].strip("/")) > PORT
    assert "no address of this machine" in problem(Address("192.0.2.7", 0), "a-token")
    assert "no address of this machine" in problem(Address("no-such-machine.invalid", 0), "a-token")
    assert Address("0.0.0.0", 5).link(5) != "http://0.0.0.0:5/" and Address("::1", 5).link(5) == "http://[::1]:5/"


def test_flags() -> None:
    assert parse_address("8080") == Address(port=8080) and parse_address("0") == Address(port=0)
    assert parse_address("0.0.0.0:8080") == Address("0.0.0.0", 8080) and parse_address("[::]:80") == Address("::", 80)
    assert parse_address("localhost:1").local and parse_address("127.0.0.9:1").local and parse_address("[::1]:1").local
    assert not parse_address("studio:1").local and not parse_address("10.0.0.1:1").local
    places = ("", "x", "-1", "65536", "0.0.0.0", "a:b", ":80", "a b:80", "::1:80", "http://a:80", "1" * 30, "\u0661")
    for wrong in places:
        with pytest.raises(ValueError, match="allowed is"):
            parse_address(wrong)
    for wrong in ("", "short", "with blank", "x" * 201, "a/b?c=d", "passwört"):
        with pytest.raises(ValueError, match="allowed is") as error:
            parse_token(wrong)
        assert not wrong or wrong not in str(error.value)  # it is a secret

    def check(*words: str, **environ: str) -> None:
        parser = argparse.ArgumentParser()
        train_web.add_arguments(parser.add_argument_group())
        train_web.check(parser.parse_args(words), environ)

    check()
    check("--preview-web")
    check("--preview-web", "0.0.0.0:0", "--preview-web-token", "open-sesame")
    check("--preview-web", "0.0.0.0:0", FACESMITH_WEB_TOKEN="open-sesame")
    for words, environ, told in (
        (["--preview-web", "0.0.0.0:0"], {}, "Give a token"),
        (["--preview-web", "[::]:0"], {}, "Give a token"),
        (["--preview-web-token", "open-sesame"], {}, "without --preview-web"),
        (["--preview-web-name", "box"], {}, "without --preview-web"),
        (["--preview-web"], {"FACESMITH_WEB_TOKEN": "x"}, "FACESMITH_WEB_TOKEN: allowed is"),
        (["--preview-web", "0.0.0.0:0"], {"FACESMITH_WEB_TOKEN": ""}, "FACESMITH_WEB_TOKEN: allowed is"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=told):
            check(*words, **environ)


def test_the_token_is_kept_out_of_logs() -> None:
    flag = "--preview-web-token"
    token = "open-sesame"
    for words in ([flag, token], [f"{flag}={token}"], ["--preview-web-t", token], [f"{flag[:-3]}={token}"]):
        assert without_secrets(["a", *words, "--preview-web", "8080"]) == ["a", flag, "...", "--preview-web", "8080"]
    assert without_secrets([flag]) == [flag] and without_secrets(["--preview-web=1"]) == ["--preview-web=1"]


def free_port() -> int:
    with open_socket("127.0.0.1", 0) as one:
        return int(one.getsockname()[1])


def test_a_training_is_watched_changed_and_ended_by_the_page(faces: Path, copy: Path) -> None:
    """Headless and at its target it waits for the page, as it would for a window."""
    port, before = free_port(), ModelDir(copy, "new", "SAEHD").read_data().iter
    seen: dict[str, Any] = {}

    def status() -> dict[str, Any]:
        try:
            return dict(json.loads(ask(port, "/state")[1]))
        except OSError:
            return {"status": "", "iteration": 0}

    def visit() -> None:
        seen["target"] = soon(lambda: status()["status"] == "target", 90)
        seen["state"] = status()
        seen["picture"] = ask(port, "/picture?page=1")[1]
        seen["options"] = json.loads(ask(port, "/options")[1])
        seen["wrong"] = ask(port, "/command", {"given": {"batch_size": "0"}})[0]
        seen["refused"] = soon(lambda: any("batch_size: got" in word["text"] for word in status()["words"]), 60)
        ask(port, "/command", {"given": {"target_iter": str(before + 4), "batch_size": "3"}})
        seen["changed"] = soon(lambda: status()["iteration"] == before + 4 and status()["status"] == "target", 90)
        ask(port, "/command", {"name": "stop"})

    visitor = threading.Thread(target=visit)
    visitor.start()
    words = ["--no-preview", "--no-override", "--set", f"target_iter={before + 2}", "--preview-web", str(port)]
    done = here(command(faces, copy, *words, small=False))
    visitor.join()
    assert done.returncode == 0, done.stderr
    assert f"Preview page: http://127.0.0.1:{port}/" in done.stdout and "You can use preview now." in done.stdout
    assert "batch_size: got '0'" in done.stdout and "batch_size 2 -> 3" in done.stdout
    state, rows = seen["state"], {row["key"]: row for row in seen["options"]}
    assert seen["target"] and seen["refused"] and seen["changed"] and seen["wrong"] == 202
    assert state["name"] == "new_SAEHD" and len(state["pages"]) >= 2 and seen["picture"].startswith(b"\x89PNG")
    assert rows["batch_size"]["value"] == "2" and rows["random_warp"]["choices"] == ["y", "n"]
    assert "resolution" not in rows and rows["max_backups"]["more"]
    data = ModelDir(copy, "new", "SAEHD").read_data()
    assert data.iter == before + 4 and data.options["batch_size"] == 3
    assert list(copy.glob("new_SAEHD_preview_*.jpg"))  # files too


def test_what_is_wrong_is_told_before_anything_else(faces: Path, tmp_path: Path) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for words, told in (
            (["--preview-web", port], f"port {port} is in use"),
            (["--preview-web", "0.0.0.0:0"], "--preview-web-token SECRET"),
            (["--preview-web", "x"], "allowed is a port"),
        ):
            done = here(command(faces, tmp_path / "model", *words))
            assert done.returncode == 2 and told in done.stderr and "Loading" not in done.stdout
    done = here(command(faces, tmp_path / "model", "--preview-web", "--preview-web-token", "ab cd", "--dry-run"))
    assert done.returncode == 2 and "ab cd" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGKILL", 0)])
def test_a_training_in_a_process(faces: Path, tmp_path: Path, number: int) -> None:
    """With a token from the command line, which is told nowhere; whatever ends it ends the page."""
    model = tmp_path / "model"
    words = command(faces, model, "--no-preview", "--preview-web", "0.0.0.0:0", "--preview-web-token", "open-sesame")
    events = tmp_path / "events.jsonl"
    words += ["--events", str(events), "--seed", "1"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout is not None
        out = ""
        for line in process.stdout:
            out += line
            if found := re.search(r"Preview page: http://([0-9.]+):(\d+)/ It asks for the token", line):
                break
        assert found, out
        host, port = found[1], int(found[2])
        assert host != "0.0.0.0"
        assert ask(port, "/state")[0] == 401 and ask(port, "/?token=open-sesame")[0] == 303
        family = [int(one.name) for one in Path("/proc").iterdir() if _is_page(one, process.pid)]
        assert len(family) == 1
        assert soon(lambda: (model / "new_SAEHD_data.dat").exists(), 60)
        process.send_signal(number)
        out += process.stdout.read()
        assert process.wait(30) == (0 if number == signal.SIGTERM else -number), out
    assert soon(lambda: not _alive(family[0]))
    log = (model / "new_SAEHD_facesmith_log.txt").read_text()
    assert "open-sesame" not in out + log + events.read_text() and "--preview-web-token ..." in log
    if number != signal.SIGTERM:
        return
    # the line that reproduces the run asks for a token of one's own
    same = re.search(r"The same run again: python main.py (.*)", out)
    assert same and run([sys.executable, "main.py", *same[1].split()]).returncode == 2


def _is_page(process: Path, parent: int) -> bool:
    try:
        words, status = (process / "cmdline").read_bytes(), (process / "status").read_text()
    except OSError:
        return False
    return b"core.web_child" in words and f"PPid:\t{parent}\n" in status


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
