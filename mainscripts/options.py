"""Prints the option rows as Markdown; docs/options.md is its output:  python main.py options > docs/options.md"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="CLASS", help="only this model")


def table(model: str | None = None) -> str:
    """The document: a heading and a table per model."""
    from core.options import markdown
    from models import MODELS

    parts = ["# Options\n\nGenerated from the option rows: `python main.py options > docs/options.md`.\n"]
    for name, spec in MODELS.items():
        if model in (None, name):
            parts.append(f"\n## {name}\n\n{markdown(spec.rows)}")
    return "".join(parts)


def run(args: argparse.Namespace) -> int:
    print(table(args.model), end="")
    return 0
