"""Where the preview page is served: this machine alone, unless an address and a token are given."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

PORT = 8765
"""Taken where no port is given; one of the next where it is in use."""
TRIES = 20
LOOPBACK = "127.0.0.1"
ALLOWED = "allowed is a port from 0 (any that is free) to 65535, or an address with one, such as 0.0.0.0:8080"
TOKEN = "6 to 200 letters, digits, dots, dashes, underscores and tildes"


@dataclass(frozen=True)
class Address:
    """host: an address or name of this machine. port: 0 is any that is free, None the usual one or a near one."""

    host: str = LOOPBACK
    port: int | None = None

    def ports(self) -> list[int]:
        """What is tried, in this order."""
        return [self.port] if self.port is not None else [PORT + more for more in range(TRIES)]

    @property
    def local(self) -> bool:
        """Whether only this machine can visit it."""
        return is_loopback(self.host)

    def link(self, port: int) -> str:
        """What to open; where all addresses are served, the one that other machines most likely reach."""
        host = _outward(self.host) if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def parse_address(text: str) -> Address:
    """`8080`, `0.0.0.0:8080`, `[::]:8080`, `name:0`. Raises ValueError saying what is allowed."""
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"got {text!r}, {ALLOWED}")
    host = (match[1] or LOOPBACK).strip("[]")
    return Address(LOOPBACK if host.lower() == "localhost" else host, int(match[2]))


def parse_token(text: str) -> str:
    """The token as given; raises ValueError saying what it may be."""
    if not re.fullmatch(r"[A-Za-z0-9._~-]{6,200}", text):
        raise ValueError(f"allowed is {TOKEN}")
    return text


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which no other can reach."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def is_number(host: str) -> bool:
    """Whether it is an address and no name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    server = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where a second program could take the port else
            server.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(place)
        server.listen(64)
    except OSError:
        server.close()
        raise
    return server


def problem(address: Address, token: str) -> str:
    """Why the page cannot be served there, and what to do; "" where it can be, as far as is known now."""
    if not address.local and not token:
        return (
            f"--preview-web {address.host}:{address.port}: whoever reaches this machine could watch and stop the "
            "training. Give a token, --preview-web-token SECRET, which the page then asks for, or leave the address "
            "out and come by ssh: ssh -L 8080:127.0.0.1:PORT this-machine."
        )
    if address.port is None:
        return ""
    try:
        open_socket(address.host, address.port).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return f"--preview-web: {why(error, address.host, address.port)}"
    return ""


def why(error: Exception, host: str, port: int) -> str:
    """A failed `open_socket` in words."""
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} is in use by another program. Give another one, or 0 for any that is free."
    if code == errno.EACCES:
        return f"port {port} is not allowed to you. Give one from 1024 on, or 0 for any that is free."
    if code == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror | UnicodeError):
        return f"{host} is no address of this machine. 0.0.0.0 stands for all of its addresses."
    return f"{host}:{port} cannot be opened: {getattr(error, 'strerror', None) or error}."


def _outward(wildcard: str) -> str:
    """This machine's address towards others, by where a packet would go; none is sent."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        return str(probe.getsockname()[0])
    return "::1" if ":" in wildcard else LOOPBACK
