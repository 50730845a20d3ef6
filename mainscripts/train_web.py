"""The preview page of a training: its flags, and which options it offers to change."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.options import Option, OptionError
from core.web_address import PORT, TOKEN, Address, parse_address, parse_token, problem

if TYPE_CHECKING:
    from mainscripts.train_setup import Setup

TOKEN_VARIABLE = "FACESMITH_WEB_TOKEN"


@dataclass(frozen=True)
class Web:
    """Where the page is served, what its visitors have to know, under which names they may come, and the rows of
    options that it offers."""

    address: Address
    token: str
    names: tuple[str, ...]
    options: Callable[[], list[dict[str, Any]]]


def add_arguments(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--preview-web", type=_address, nargs="?", const=Address(), metavar="PORT",
        help=f"show the preview in a browser, with the window's keys as buttons (default: port {PORT} or one of the "
        "next, 0: any that is free; this machine only unless an address such as 0.0.0.0:8080 and a token are given)",
    )
    ours.add_argument(
        "--preview-web-token", type=_token, metavar="SECRET",
        help=f"what a browser has to know to see that page: {TOKEN}. Others on this machine can read command lines; "
        f"the environment variable {TOKEN_VARIABLE} does the same",
    )  # fmt: skip
    ours.add_argument(
        "--preview-web-name", type=_name, action="append", default=[], metavar="NAME",
        help="a further name under which browsers reach that page, such as a proxy's (repeatable)",
    )  # fmt: skip


def check(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> None:
    """Raises OptionError where the page cannot be served as asked for."""
    if args.preview_web is None:
        if args.preview_web_token is not None or args.preview_web_name:
            given = "token" if args.preview_web_token is not None else "name"
            raise OptionError(f"--preview-web-{given} without --preview-web: give both, or neither.")
        return
    if wrong := problem(args.preview_web, _token_of(args, environ)):
        raise OptionError(wrong)


def web_of(args: argparse.Namespace, setup: Setup, environ: Mapping[str, str] = os.environ) -> Web | None:
    """The page as asked for; None where none is."""
    if args.preview_web is None:
        return None
    return Web(args.preview_web, _token_of(args, environ), tuple(args.preview_web_name), lambda: offered(setup))


def offered(setup: Setup) -> list[dict[str, Any]]:
    """The options that may change in a model that exists, those that are asked for first, as the page shows them."""
    rows = [row for row in setup.spec.rows if row.ask != "create"]
    rows.sort(key=lambda row: row.ask == "advance")
    values = setup.values
    return [_plain(row, values.chosen.get(row.key, values[row.key])) for row in rows]


def _plain(row: Option, value: Any) -> dict[str, Any]:
    return {
        "key": row.key,
        "kind": row.kind,
        "label": row.label.rstrip(" ."),
        "help": row.explanation(),
        "value": row.show(value),
        "choices": ["y", "n"] if row.kind == "bool" else list(row.choices),
        "low": row.low,
        "high": row.high,
        "more": row.ask == "advance",
    }


def _token_of(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The token; "" where there is none. Raises OptionError."""
    given = environ.get(TOKEN_VARIABLE)
    if args.preview_web_token is not None or given is None:
        return args.preview_web_token or ""
    try:
        return parse_token(given)
    except ValueError as error:
        raise OptionError(f"{TOKEN_VARIABLE}: {error}.") from None


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed is a name without port, such as box.example.org")
    return text


def _token(text: str) -> str:
    try:
        return parse_token(text)
    except ValueError as error:  # which does not repeat it
        raise argparse.ArgumentTypeError(str(error)) from None
