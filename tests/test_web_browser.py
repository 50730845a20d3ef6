"""The preview page in a real browser: what it shows, its keys, buttons and forms, on a desk and on a phone."""

from __future__ import annotations

import dataclasses
import queue
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser, chromium
from tests_support import soon
from training import ENVIRONMENT, command

from core.events import Command, Noted, Previewed, Started, Stepped, Stopped, Warned
from core.web import WebPage
from core.web_address import Address

pytestmark = pytest.mark.slow
BLUE, GREEN = (200, 40, 20), (30, 190, 60)
ROWS: list[dict[str, Any]] = [
    {"key": "batch_size", "kind": "int", "label": "Batch_size", "help": "Faces at once.", "value": "4", "choices": [],
     "low": 1, "high": 64, "more": False},
    {"key": "random_warp", "kind": "bool", "label": "Warp", "help": "Bends.", "value": "y", "choices": ["y", "n"],
     "low": None, "high": None, "more": True},
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


class Trainer:
    def __init__(self, port: int = 0, **more: Any) -> None:
        self.commands: queue.Queue[Command] = queue.Queue()
        where = Address(port=port)
        self.page = WebPage(
            self.commands, lambda event: None, lambda reason: None, address=where, options=lambda: ROWS, **more
        )
        assert self.page.ready.wait(60)
        losses = np.geomspace(1, 0.1, 12_000).reshape(-1, 2)
        self.page(Started("new_SAEHD", 6000, 9000, ("src_loss", "dst_loss"), losses))
        self.page(pages())

    def asked(self) -> Command:
        return self.commands.get(timeout=20)


def pages() -> Previewed:
    def cells(colour: tuple[int, int, int]) -> list[list[np.ndarray]]:
        return [[np.full((64, 64, 3), colour, np.uint8)] * 5] * 4

    return Previewed(6000, [("SAEHD", cells(BLUE)), ("SAEHD masked", cells(GREEN))])


@pytest.fixture
def trainers() -> Iterator[list[Trainer]]:
    made: list[Trainer] = []
    yield made
    for one in made:
        one.page.close()


def text(browser: Browser, identity: str) -> str:
    return str(browser.run(f"document.getElementById('{identity}').innerText"))


def shows(browser: Browser, path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels have the colour."""
    picture = cv2.imread(str(browser.picture(path)))
    return int((np.abs(picture.astype(int) - colour) <= 3).all(2).sum())


def test_it_shows_and_obeys(browser: Browser, trainers: list[Trainer], tmp_path: Path) -> None:
    trainers.append(one := Trainer())
    shot = tmp_path / "shot.png"
    browser.open(one.page.link)
    browser.until("document.getElementById('picture').complete && document.getElementById('graph').naturalWidth")
    assert text(browser, "name") == "new_SAEHD" and text(browser, "status") == "training"
    assert text(browser, "iteration") == "Iteration 6,000 of 9,000" and "Synthetic media" in text(browser, "label")
    assert soon(lambda: shows(browser, shot, BLUE) > 100_000)
    one.page(Stepped(6001, {"src_loss": 0.25, "dst_loss": 0.5}, 20.0))
    one.page(Warned("<img src=x onerror=document.title='broken'>"))
    browser.until("document.getElementById('words').innerText.includes('<img src=x')")
    assert "src_loss 0.2500" in text(browser, "facts") and "50.0 it/s" in text(browser, "facts")
    keys = {"s": "save", "b": "backup", "p": "preview", "S": "save"}
    for key, name in {**keys, "2": "save", "0": "backup", "3": "preview"}.items():
        browser.press(key)
        assert one.asked() == Command(name)  # type: ignore[arg-type]
    browser.press(" ")
    assert soon(lambda: shows(browser, shot, GREEN) > 100_000) and text(browser, "page") == "SAEHD masked [2/2]"
    one.page(pages())  # new pictures: the page stays
    browser.click("nav [data-key=' ']")
    assert soon(lambda: shows(browser, shot, BLUE) > 100_000)
    browser.press("l")
    assert text(browser, "range") == "last 5,000"
    browser.press("1")
    assert text(browser, "range") == "last 10,000"
    for _ in range(12):
        browser.press("+")
    assert browser.run("document.getElementById('picture').clientWidth") == 320 * 5
    for _ in range(12):
        browser.press("-")
    assert browser.run("document.getElementById('picture').clientWidth") == 320 / 4
    browser.run("document.getElementById('small').click()")
    browser.until("document.getElementById('picture').src.includes('form=jpg')")
    browser.press("Enter")
    browser.until("document.getElementById('stop').open")
    browser.press("Escape")
    browser.until("!document.getElementById('stop').open && document.activeElement === document.body")
    browser.press("Enter")
    browser.until("document.getElementById('stop').open && document.activeElement.value === ''")
    browser.press("Enter")  # a second one goes on: ending takes a choice
    browser.until("!document.getElementById('stop').open")
    assert one.commands.empty()
    browser.click("nav [data-key=Enter]")
    browser.click("#stop button[value=stop]")
    assert one.asked() == Command("stop") and one.commands.empty()
    assert browser.run("document.title") == "new_SAEHD 6001" and not browser.errors


def test_options(browser: Browser, trainers: list[Trainer]) -> None:
    trainers.append(one := Trainer())
    browser.open(one.page.link)
    browser.until("document.getElementById('name').innerText === 'new_SAEHD'")
    browser.press("o")
    browser.until("document.getElementById('options').open")
    browser.run("document.querySelector('[name=batch_size]').value = '65'")
    browser.click("#options button[value=apply]")
    assert browser.run("document.getElementById('options').open")  # the browser says what is allowed
    browser.run("document.querySelector('[name=batch_size]').value = '8'")
    browser.click("#options button[value=apply]")
    assert one.asked() == Command("options", {"given": {"batch_size": "8"}})
    browser.press("o")
    browser.until("document.getElementById('options').open")
    browser.run("document.querySelector('[name=random_warp]').value = 'n'")
    browser.click("#cancel")
    browser.press("o")
    browser.until("document.getElementById('options').open")
    browser.click("#options button[value=apply]")  # nothing changed, nothing sent
    browser.press("s")
    assert one.asked() == Command("save") and not browser.errors


def test_names_on_tiles_and_help(browser: Browser, trainers: list[Trainer], tmp_path: Path) -> None:
    trainers.append(one := Trainer())
    browser.run("localStorage.clear()")
    browser.open(one.page.link)
    browser.until("document.getElementById('picture').naturalWidth && document.getElementById('named').hidden")
    one.page(dataclasses.replace(pages(), captions={"SAEHD": [["00001.jpg", "", "<b>2</b>.jpg"], [], ["x" * 300]]}))
    browser.until("!document.getElementById('named').hidden")
    assert text(browser, "names") == ""
    browser.press("n")
    browser.until("document.querySelectorAll('#names span').length === 20")
    spans = browser.run("[...document.querySelectorAll('#names span')].map((one) => one.textContent)")
    assert spans[:5] == ["00001.jpg", "", "<b>2</b>.jpg", "", ""] and spans[10] == "x" * 300
    box = "document.getElementById('{}').getBoundingClientRect()"
    sheet, picture = (browser.run(f"JSON.stringify({box.format(name)})") for name in ("names", "picture"))
    assert sheet == picture  # they lie on it, whatever they say
    browser.picture(tmp_path / "names.png")
    browser.press(" ")
    browser.until("document.getElementById('named').hidden")
    browser.press("4")
    browser.press("?")
    browser.until("document.getElementById('help').open")
    browser.press("Escape")
    browser.until("!document.getElementById('help').open")
    browser.press("+")
    browser.press("f")
    assert browser.run("document.getElementById('zoom').value") == "fit" and not browser.errors


def test_on_a_phone(browser: Browser, trainers: list[Trainer], tmp_path: Path) -> None:
    trainers.append(one := Trainer())
    one.page(Warned(f"A long word: {'x' * 300}"))
    one.page(Noted("\n".join(["======= Model Summary =======", *["== a line of the summary, wide =="] * 20])))
    browser.run("localStorage.clear()")
    browser.open(one.page.link, 390, 844, phone=True)
    browser.until("document.getElementById('picture').naturalWidth && document.getElementById('graph').naturalWidth")
    browser.until("document.getElementById('words').children.length >= 2")
    assert browser.run("document.documentElement.scrollWidth <= 390")
    heights = browser.run("[...document.querySelectorAll('nav button:not([hidden])')].map((one) => one.clientHeight)")
    assert min(heights) >= 36  # for a finger
    assert soon(lambda: shows(browser, tmp_path / "phone.png", BLUE) > 100_000)
    browser.click("nav [data-key=o]")
    browser.until("document.getElementById('options').open")
    assert browser.run("document.getElementById('options').scrollWidth <= 390")


def test_its_end_and_another_beginning(browser: Browser, trainers: list[Trainer]) -> None:
    trainers.append(one := Trainer())
    browser.open(one.page.link)
    browser.until("document.getElementById('status').innerText === 'training'")
    port = int(one.page.link.rpartition(":")[2].strip("/"))
    one.page(Stopped(6000, "command"))
    one.page.close()
    browser.until("document.getElementById('status').innerText === 'training ended'")
    assert "The model is saved." in text(browser, "words")
    assert browser.run("document.querySelector('[data-key=s]').disabled")
    time.sleep(4)  # it asks again and again, and nobody answers
    assert text(browser, "status") == "training ended"
    trainers.append(two := Trainer(port))
    browser.until("document.getElementById('status').innerText === 'training'")
    assert not browser.run("document.querySelector('[data-key=s]').disabled") and "saved" not in text(browser, "words")
    two.page._process.kill()
    browser.until("document.getElementById('status').innerText === 'training ended, or out of reach'")
    browser.errors.clear()  # refused connections


def test_the_token(browser: Browser, trainers: list[Trainer]) -> None:
    trainers.append(one := Trainer(token="open-sesame"))
    browser.open(one.page.link)
    browser.until("document.querySelector('[name=token]') !== null")
    for given in ("wrong-one", "open-sesame"):
        browser.run(f"document.querySelector('[name=token]').value = '{given}'")
        browser.click("button")
        browser.until("document.readyState === 'complete' && location.search !== '?'")
        if given == "wrong-one":
            browser.until("document.querySelector('[name=token]').value === ''")
    browser.until("document.getElementById('name') && document.getElementById('name').innerText === 'new_SAEHD'")
    assert "sesame" not in browser.run("location.href") and browser.run("document.cookie") == ""
    browser.press("s")
    assert one.asked() == Command("save")
    browser.errors.clear()  # its console notes the refused token


def test_a_real_training(browser: Browser, faces: Path, tmp_path: Path) -> None:
    words = command(faces, tmp_path / "model", "--no-preview", "--preview-web", "0")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, env=ENVIRONMENT, **pipes) as process:
        try:
            assert process.stdout is not None
            link = next(found[1] for line in process.stdout if (found := re.search(r"page: (http://\S+)", line)))
            browser.open(link)
            browser.until("document.getElementById('picture').naturalWidth > 0", 60)
            browser.until("parseInt(document.getElementById('iteration').innerText.split(' ')[1]) > 3", 60)
            browser.press("n")
            browser.until("document.getElementById('names').innerText.includes('.jpg')")
            browser.press("s")
            browser.until("/Saved at iteration ([4-9]|\\d\\d)/.test(document.getElementById('words').innerText)", 60)
            browser.click("nav [data-key=Enter]")
            browser.click("#stop button[value=stop]")
            browser.until("document.getElementById('status').innerText === 'training ended'", 60)
            process.stdout.read()
            assert process.wait(30) == 0
        finally:
            process.send_signal(signal.SIGKILL)
