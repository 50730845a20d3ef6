"""The preview page's HTTP: who may ask, what there is, and nothing else.

Every request has to name this machine as its host, or a page from elsewhere whose name was made to point here could
ask (DNS rebinding). Commands have to come from the page itself. Paths are looked up in a table; none reaches the disk.
A connection lives for a limited time and there is a limited number of them.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import math
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from core.web_address import is_loopback, is_number
from core.web_site import FORMS, Site

FILES = Path(__file__).resolve().parent / "webpage"
MAX_BODY = 16_384
MAX_OPEN = 64
"""Connections at once."""
READ_S, LIFE_S = 15.0, 90.0
"""Seconds until a request has to be complete, and until its answer has to be taken."""
WAIT_S = 10.0
"""Seconds that a question for news waits for some."""
WRONG_TOKEN_S = 0.5
COMMANDS = ("save", "backup", "preview", "stop")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HTML, CSS, SCRIPT, PLAIN = (f"text/{kind}; charset=utf-8" for kind in ("html", "css", "javascript", "plain"))
JSON = "application/json"


class Refused(Exception):
    """A request that gets no answer but a status and a line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class PageServer(ThreadingHTTPServer):
    """Serves `site` on a listening socket.

    token: what visitors have to know, "" for nothing. names: under which it may be visited, besides the machine's own
    and, where it is open to others, any address. obey: gets what the page asks for.
    """

    daemon_threads = True

    def __init__(
        self,
        listening: socket.socket,
        site: Site,
        token: str,
        names: tuple[str, ...],
        obey: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        place = listening.getsockname()
        super().__init__(place[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.site, self.token, self.obey = site, token, obey
        self.names = {name.lower() for name in names}
        self.local = is_loopback(place[0])
        self.cookie = f"facesmith_{place[1]}"
        self.secret = secrets.token_urlsafe(32)
        self.files = {name: (FILES / name).read_bytes() for name in ("page.html", "page.css", "page.js", "token.html")}
        self._clock, self._rest = clock, rest
        self._guessing = threading.Lock()
        self._open: dict[socket.socket, list[float]] = {}  # when it ends, and whether it is a request (1) by now
        self._visited = -math.inf
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Makes room first: the oldest connection that has not asked for anything yet goes."""
        with self._lock:
            idle = [one for one, (_, asked) in self._open.items() if not asked]
            full = len(self._open) >= MAX_OPEN
            if full and idle:
                del self._open[idle[0]]
            if not full or idle:
                self._open[request] = [self._clock() + READ_S, 0.0]
        if full and not idle:
            self.shutdown_request(request)
            return
        if full:
            _cut(idle[0])
        super().process_request(request, client_address)

    def asked(self, request: socket.socket) -> None:
        """The connection has become a request."""
        with self._lock:
            self._visited = self._clock()
            if request in self._open:
                self._open[request] = [self._clock() + LIFE_S, 1.0]

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: ends what takes too long."""
        now = self._clock()
        with self._lock:
            late = [one for one, (end, _) in self._open.items() if now > end]
        for one in late:
            _cut(one)

    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        with self._lock:
            return any(asked for _, asked in self._open.values())

    def visited(self, now: float) -> bool:
        """Whether anybody is likely to look at the page."""
        with self._lock:
            return now - self._visited < 2 * WAIT_S

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor that went away is none; anything else is told."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def wrong(self) -> None:
        """Slows guesses down, those of all visitors together."""
        with self._guessing:
            self._rest(WRONG_TOKEN_S)


class Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server: PageServer
    timeout = READ_S
    default_request_version = "HTTP/1.0"  # what cannot be understood gets our headers too

    def do_GET(self) -> None:
        self._answered(self._get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, work: Callable[[], None]) -> None:
        try:
            self._check_host()
            work()
        except Refused as refused:
            self._send(PLAIN, refused.text.encode(), refused.status)

    def _check_host(self) -> None:
        given = ", ".join(self.headers.get_all("Host") or []).lower()  # two of them match nothing
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\], ]+)(:[0-9]{1,5})?", given)
        host = match[1].strip("[]").rstrip(".") if match else ""
        if not (is_loopback(host) or host in self.server.names or (is_number(host) and not self.server.local)):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "This page answers to this machine's own name or address only, such as http://127.0.0.1, and to names "
                "given with --preview-web-name.\n",
            )

    def _check_visitor(self) -> None:
        """Knows the token, by the cookie that the token has brought."""
        self.server.asked(self.connection)
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and self._path() != "/":
            raise Refused(HTTPStatus.FORBIDDEN, "Asked for by another page.\n")
        if self.server.token and not _same(self._cookie(), self.server.secret):
            raise Refused(HTTPStatus.UNAUTHORIZED, "The token is missing: open the page and give it.\n")

    def _path(self) -> str:
        try:
            return urlsplit(self.path).path
        except ValueError:
            return ""

    def _query(self, name: str) -> str:
        found = parse_qs(urlsplit(self.path).query, max_num_fields=10).get(name, [""])
        return found[0]

    def _number(self, name: str, otherwise: int = 0) -> int:
        text = self._query(name)
        return int(text) if re.fullmatch("[0-9]{1,12}", text) else otherwise

    def _cookie(self) -> str:
        for pair in self.headers.get("Cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.server.cookie:
                return value
        return ""

    def _get(self) -> None:
        path, site, files = self._path(), self.server.site, self.server.files
        if path == "/page.css":  # the page that asks for the token needs it
            self._send(CSS, files["page.css"])
        elif path == "/favicon.ico":
            self._send(PLAIN, b"", HTTPStatus.NO_CONTENT)
        elif path == "/":
            self._front()
        elif path in ("/page.js", "/state", "/options", "/picture", "/graph"):
            self._check_visitor()
            if path == "/page.js":
                self._send(SCRIPT, files["page.js"])
            elif path == "/state":
                seconds = 0.0 if self.command == "HEAD" else WAIT_S
                self._send(JSON, json.dumps(site.state(self._number("after", -1), seconds)).encode())
            elif path == "/options":
                self._send(JSON, json.dumps(site.options()).encode())
            elif path == "/graph":
                self._send("image/png", site.graph(self._number("range"), self._number("width", 960)))
            else:
                self._picture()
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.\n")

    def _front(self) -> None:
        """The page; for who does not know the token, the page that asks for it."""
        server = self.server
        if not server.token or _same(self._cookie(), server.secret):
            self.server.asked(self.connection)
            self._send(HTML, server.files["page.html"])
            return
        given = self._query("token")
        if _same(given, server.token):
            # a cookie rather than the token itself, and not in the address: those are kept and shown
            cookie = f"{server.cookie}={server.secret}; HttpOnly; SameSite=Lax; Path=/"
            self._send(PLAIN, b"", HTTPStatus.SEE_OTHER, {"Location": "/", "Set-Cookie": cookie})
            return
        if given:
            server.wrong()
        self._send(HTML, server.files["token.html"], HTTPStatus.UNAUTHORIZED)

    def _picture(self) -> None:
        form = self._query("form") or FORMS[0]
        data = self.server.site.picture(self._number("page"), form) if form in FORMS else None
        if data is None:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such picture.\n")
        self._send("image/jpeg" if form == "jpg" else "image/png", data)

    def _post(self) -> None:
        if self._path() != "/command":
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        self._check_origin()
        self._check_visitor()
        self.server.obey(_command(self._body()))
        self._send(JSON, b"{}", HTTPStatus.ACCEPTED)

    def _check_origin(self) -> None:
        """Browsers say which page sends a command; another one's, and a form's, must not count."""
        given = self.headers.get_all("Origin") or []
        host = self.headers.get("Host", "").lower()
        if len(given) != 1 or given[0].lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(HTTPStatus.FORBIDDEN, "Commands are taken from the page itself only.\n")
        if self.headers.get_content_type() != JSON:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"A command is {JSON}.\n")

    def _body(self) -> bytes:
        size = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", size):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing.\n")
        if int(size) > MAX_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A command has at most {MAX_BODY} bytes.\n")
        body = self.rfile.read(int(size))
        if len(body) != int(size):
            raise Refused(HTTPStatus.BAD_REQUEST, "The command is cut off.\n")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: like everything else, and without repeating what was sent."""
        self.close_connection = True
        self._send(PLAIN, f"{HTTPStatus(code).phrase}.\n".encode(), HTTPStatus(code))

    def _send(
        self, kind: str, data: bytes, status: HTTPStatus = HTTPStatus.OK, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.connection.settimeout(LIFE_S)
            self.wfile.write(data)

    def version_string(self) -> str:
        """Nothing of versions."""
        return "facesmith"

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal is the training's."""


def _command(body: bytes) -> dict[str, Any]:
    """`{"name": "save"}` or `{"given": {"batch_size": "8"}}`, checked; raises Refused."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and len(said) == 1:
        if said.get("name") in COMMANDS:
            return {"name": said["name"]}
        given = said.get("given")
        if isinstance(given, dict) and 0 < len(given) <= 100 and all(map(_is_answer, given.items())):
            return {"given": given}
    allowed = f'{{"name": one of {", ".join(COMMANDS)}}} or {{"given": {{"batch_size": "8"}}}}'
    raise Refused(HTTPStatus.BAD_REQUEST, f"Allowed is {allowed}.\n")


def _is_answer(pair: tuple[Any, Any]) -> bool:
    key, value = pair
    return bool(re.fullmatch("[a-z0-9_]{1,64}", key)) and isinstance(value, str) and len(value) <= 200


def _same(given: str, secret: str) -> bool:
    """In a time that says nothing about where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _cut(connection: socket.socket) -> None:
    """Ends a connection; its thread notices."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
