"""Who may ask the preview page for what: real requests over real sockets, kind ones and others."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from tests_support import soon

from core import web_server
from core.history import COMMENT
from core.web_address import open_socket
from core.web_server import MAX_BODY, READ_S, PageServer
from core.web_site import Site

TOKEN = "open-sesame"
COLOUR = (200, 40, 20)


class Visit:
    """A server in this process, and its visitors."""

    def __init__(self, token: str = "", host: str = "127.0.0.1") -> None:
        self.now = 0.0
        self.rests: list[float] = []
        self.obeyed: list[dict[str, Any]] = []
        self.site = Site()
        listening = open_socket(host, 0)
        self.port = listening.getsockname()[1]
        self.server = PageServer(
            listening, self.site, token, ("Studio", "box.example.org"), self.obeyed.append, lambda: self.now,
            self.rests.append,
        )  # fmt: skip
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, host: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {"Host": host or f"127.0.0.1:{self.port}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), data

    def order(self, what: Any, **headers: str) -> int:
        own = {"Origin": f"http://127.0.0.1:{self.port}", "Content_Type": "application/json"}
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        return self.ask("/command", "POST", body, **{**own, **headers})[0]

    def raw(self, request: bytes) -> bytes:
        """The whole answer to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as one:
            one.sendall(request)
            one.shutdown(socket.SHUT_WR)
            pieces = []
            while piece := one.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)

    def cookie(self) -> str:
        return self.ask(f"/?token={TOKEN}")[1]["Set-Cookie"].partition(";")[0]

    def close(self) -> None:
        self.site.end()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def visit() -> Iterator[Callable[..., Visit]]:
    made: list[Visit] = []

    def make(*given: Any, **more: Any) -> Visit:
        made.append(Visit(*given, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fill(site: Site) -> None:
    """A start, three iterations and two pages."""
    history = np.ones((2, 2), np.float32)
    start = {"kind": "start", "name": "new_SAEHD", "iteration": 2, "target": 9, "losses": ["src_loss", "dst_loss"]}
    site.take(start, [history.tobytes()])
    values = np.array([[0.5, np.nan], [0.4, 0.3], [0.3, 0.2]], np.float32)
    steps = {"kind": "steps", "iteration": 5, "losses": ["src_loss", "dst_loss"], "facts": ["3 it/s"]}
    site.take(steps, [values.tobytes()])
    tiles = np.full((64, 160, 3), COLOUR, np.uint8)
    pages = [{"title": one, "shape": tiles.shape, "tiles": [2, 5], "names": []} for one in ("SAEHD", "SAEHD masked")]
    site.take({"kind": "pages", "iteration": 5, "pages": pages}, [tiles.tobytes(), (tiles // 2).tobytes()])
    site.take({"kind": "told", "level": "warning", "text": "<b>hot</b>", "time": 1.0}, [])
    site.take({"kind": "options", "options": [{"key": "batch_size"}]}, [])


def test_what_there_is(visit: Callable[..., Visit]) -> None:
    one = visit()
    fill(one.site)
    for path, kind, start in (
        ("/", "text/html", b"<!DOCTYPE"), ("/page.css", "text/css", b":root"), ("/page.js", "text/javascript", b"//"),
        ("/graph?range=5000&width=300", "image/png", b"\x89PNG"), ("/picture?page=1", "image/png", b"\x89PNG"),
        ("/picture?page=0&form=jpg", "image/jpeg", b"\xff\xd8"), ("/options", "application/json", b"[{"),
    ):  # fmt: skip
        status, headers, data = one.ask(path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind) and data.startswith(start)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Server"] == "facesmith"
        if kind.startswith("image"):
            assert path.startswith("/graph") or COMMENT.encode() in data
        before, headers_alone, nothing = one.ask(path, "HEAD")
        assert (before, nothing) == (200, b"") and headers_alone["Content-Length"] == str(len(data))
    assert one.ask("/favicon.ico")[0] == 204
    picture = cv2.imdecode(np.frombuffer(one.ask("/picture?page=0")[2], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 160, 3) and (picture == COLOUR).all()  # not a level off
    state = json.loads(one.ask("/state")[2])
    assert state["iteration"] == 5 and state["losses"] == ["src_loss 0.3000", "dst_loss 0.2000"]
    assert state["pages"] == ["SAEHD", "SAEHD masked"] and state["facts"] == ["3 it/s"] and state["target"] == 9
    assert state["words"][0]["text"] == "<b>hot</b>" and state["status"] == "training"


def test_nothing_else(visit: Callable[..., Visit]) -> None:
    one = visit()
    fill(one.site)
    for path in (
        "/page.html", "/core", "/core/", "/web.py", "/../web.py", "/%2e%2e/web.py", "/webpage/", "//etc/passwd",
        "/page.css/../web.py", "/..%2f..%2fetc/passwd", "/picture/../../../etc/passwd", "/\\etc", "/state/", "*",
        "/%00",
        "/picture?page=2", "/picture?page=-1", "/picture?form=exe", "http://elsewhere/etc", "http://[/", "/command",
        "/picture?page=99999999999999999999999999", f"/{'a' * 5000}",
    ):  # fmt: skip
        status, headers, data = one.ask(path)
        expected = 200 if path in ("/picture?page=-1", "/picture?page=99999999999999999999999999") else 404
        assert status == expected, path
        assert expected == 200 or (len(data) < 60 and headers["X-Content-Type-Options"] == "nosniff")
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        status, headers, _ = one.ask("/", method)
        assert status == 501 and headers["X-Content-Type-Options"] == "nosniff"
    assert b" 404 " in one.raw(b"POST /state HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert b" 400 " in one.raw(b"GET / HTTP/nonsense\r\n\r\n") and b" 414 " in one.raw(b"GET /" + b"a" * 70_000)
    headers_without_end = b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 200 + b"\r\n"
    assert b" 431 " in one.raw(headers_without_end)
    assert b"<script>" not in one.raw(b"GET /<script> HTTP/1.0\r\nHost: localhost\r\n\r\n")


def test_other_hosts_are_turned_away(visit: Callable[..., Visit]) -> None:
    one = visit()
    for host in ("localhost", "LOCALHOST:9000", "127.0.0.1", "[::1]:80", "localhost.", "127.8.8.8", "studio:9"):
        assert one.ask("/", host=host)[0] == 200, host
    others = ("evil.example", "evil.example:80", "localhost.evil.example", "192.168.0.7", "studio.x", "a@localhost")
    for host in others:
        assert one.ask("/", host=host)[0] == 403, host
        assert one.ask("/state", host=host)[0] == 403
    assert b" 403 " in one.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert b" 403 " in one.raw(b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    status = one.ask("/picture", Sec_Fetch_Site="cross-site")[0]
    assert status == 403 and one.ask("/", Sec_Fetch_Site="cross-site")[0] == 200  # a link may lead here


def test_open_to_others(visit: Callable[..., Visit]) -> None:
    one = visit(TOKEN, "0.0.0.0")
    for host in ("localhost", "192.168.0.7:80", "studio:80", "BOX.example.org", "[fe80::1]"):
        assert one.ask("/", host=host)[0] == 401, host
    for host in ("evil.example", "studio.evil.example", "192.168.0.7.evil.example"):
        assert one.ask(f"/?token={TOKEN}", host=host)[0] == 403, host


def test_commands_come_from_the_page_alone(visit: Callable[..., Visit]) -> None:
    one = visit()
    assert one.order({"name": "save"}) == 202 and one.order({"given": {"batch_size": "8"}}) == 202
    assert one.ask("/command", "POST", b"{}", Content_Type="application/json")[0] == 403  # no Origin
    own = f"http://127.0.0.1:{one.port}"
    for origin in ("null", "http://evil.example", f"{own}.evil.example", "http://127.0.0.1:1", "", f"ftp{own[4:]}"):
        assert one.order({"name": "stop"}, Origin=origin) == 403, origin
    assert one.order({"name": "stop"}, Sec_Fetch_Site="same-site") == 403
    assert one.order({"name": "stop"}, Content_Type="text/plain") == 415  # what a form of another page could send
    for wrong in (
        b"", b"{", b"[]", b"[" * 16_000, b'"stop"', b"\xff", {"name": "rm"}, {"name": ["stop"]}, {"name": {}}, {},
        {"name": "stop", "more": 1}, {"given": {}}, {"given": {"a b": "1"}}, {"given": {"a": 1}}, {"given": "a=1"},
        {"given": {"a": "x" * 201}}, {"given": {f"k{i}": "1" for i in range(101)}}, {"name": "options"},
    ):  # fmt: skip
        assert one.order(wrong) == 400, wrong
    assert one.order(b"x" * (MAX_BODY + 1)) == 413
    start = "POST /command HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    start += "Content-Type: application/json\r\n"
    assert b" 411 " in one.raw(f"{start}Transfer-Encoding: chunked\r\n\r\n".encode())
    assert b" 411 " in one.raw(f"{start}Content-Length: -5\r\n\r\n".encode())
    assert b" 413 " in one.raw(f"{start}Content-Length: 999999999999\r\n\r\n".encode())  # not waited for
    assert b" 400 " in one.raw(f'{start}Content-Length: 99\r\n\r\n{{"name": "stop"}}'.encode())  # cut off
    assert one.obeyed == [{"name": "save"}, {"given": {"batch_size": "8"}}]


def test_the_token(visit: Callable[..., Visit]) -> None:
    one = visit(TOKEN)
    fill(one.site)
    status, _, data = one.ask("/")
    assert status == 401 and b'name="token"' in data and b"new_SAEHD" not in data
    for path in ("/state", "/page.js", "/graph", "/picture", "/options", f"/state?token={TOKEN}"):
        assert one.ask(path)[0] == 401
    assert one.order({"name": "stop"}) == 401 and not one.rests
    for wrong in (TOKEN[:-1], f"{TOKEN}x", "%ff%00", "ü"):
        assert one.ask(f"/?token={wrong.replace('ü', '%C3%BC')}")[0] == 401
    assert len(one.rests) == 4  # guesses are slowed down
    status, headers, data = one.ask(f"/?token={TOKEN}")
    assert (status, headers["Location"], data) == (303, "/", b"")
    assert TOKEN not in headers["Set-Cookie"] and "HttpOnly; SameSite=Lax" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert one.ask("/", Cookie=f"other=1; {cookie}")[2].startswith(b"<!DOCTYPE html>")
    assert one.ask("/state", Cookie=cookie)[0] == 200 and one.order({"name": "save"}, Cookie=cookie) == 202
    name = cookie.partition("=")[0]
    for wrong in (f"{cookie}x", cookie[:-1], f"{name}=", f"{name}={TOKEN}", "\xff"):
        assert one.ask("/state", Cookie=wrong)[0] == 401
    assert visit(TOKEN).ask("/state", Cookie=cookie)[0] == 401  # of another training


def test_slow_visitors_lose_their_place(visit: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "MAX_OPEN", 4)
    one = visit()
    idle = [socket.create_connection(("127.0.0.1", one.port), 20) for _ in range(12)]
    assert one.ask("/")[0] == 200
    idle[-1].sendall(b"GET / HT")
    assert soon(lambda: len(one.server._open) == 3)
    one.now += READ_S + 1
    for connection in idle:
        connection.settimeout(20)
        assert connection.recv(100) == b""  # ended
        connection.close()
    assert soon(lambda: not one.server._open) and one.ask("/")[0] == 200
    assert soon(lambda: not one.server._open)
    answers: list[int] = []
    waiting = [threading.Thread(target=lambda: answers.append(one.ask("/state?after=0")[0])) for _ in range(4)]
    for thread in waiting:
        thread.start()
    assert soon(lambda: sum(asked for _, asked in one.server._open.values()) == 4)
    with pytest.raises((http.client.HTTPException, ConnectionError)):  # full of such as are served: no more for now
        one.ask("/")
    fill(one.site)
    for thread in waiting:
        thread.join()
    assert answers == [200] * 4


def test_a_visitor_who_does_not_listen(visit: Callable[..., Visit]) -> None:
    one = visit()
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    pages = [{"title": "SAEHD", "shape": noise.shape, "tiles": [1, 1], "names": [["<noise>.jpg"]]}]
    one.site.take({"kind": "pages", "iteration": 1, "pages": pages}, [noise.tobytes()])
    with socket.create_connection(("127.0.0.1", one.port), 20) as deaf:
        deaf.sendall(b"GET /picture HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert soon(one.server.busy)
        assert len(one.ask("/picture")[2]) > 6_000_000  # others are served meanwhile
        assert one.server.busy()
        assert json.loads(one.ask("/state")[2])["tiles"] == [{"tiles": [1, 1], "names": [["<noise>.jpg"]]}]
        one.now += 1000
        assert soon(lambda: not one.server.busy())


def test_drawn_once_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    site, drawn = Site(), list[tuple[int, ...]]()
    fill(site)
    encode = cv2.imencode

    def counted(kind: str, picture: np.ndarray, how: list[int]) -> Any:
        drawn.append(picture.shape)
        return encode(kind, picture, how)

    monkeypatch.setattr(cv2, "imencode", counted)
    threads = [threading.Thread(target=site.picture, args=(0, "png")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 1
    for width in range(290, 300):
        site.graph(0, width)
    assert len(drawn) == 2
    for width in (0, 10**9, 500, 520, *range(400, 900, 10)):
        site.graph(7, width)
    assert len(site._graphs) == 16 and drawn[3][1] == 1920
    fill(site)
    site.picture(0, "png")
    assert len(site._pictures) == 1


def test_news_is_waited_for() -> None:
    site = Site()
    fill(site)
    serial = site.state()["serial"]
    told: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: told.append(site.state(serial, 60.0)))
    waiting.start()
    site.take({"kind": "end", "text": "Training ended."}, [])
    waiting.join()
    assert told[0]["status"] == "ended" and told[0]["ended"] == "Training ended."
    site.end()
    assert site.state()["ended"] == "Training ended."
    alone = Site()
    alone.end()
    assert "without a word" in alone.state(0, 60.0)["ended"]
