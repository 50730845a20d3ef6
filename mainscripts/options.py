"""Prints the option rows as Markdown; docs/options.md is its output:  python main.py options > docs/options.md"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.options import Option

INTRODUCTION = """\
# Options

Generated from the option rows: `python main.py options > docs/options.md`.

Every option can be answered at its question, in advance with `--set key=value`, or in a file (`--options`,
`--config-training-file`): `--set` counts before a file, and a file before what is stored. What was chosen is kept with
the model: under DeepFaceLab's own key in its data.dat, or, where DeepFaceLab has no key for it, in a file of ours
beside it ([formats](formats.md)); only what happens once (`reset_iterations`, `choose_preview_history`,
`force_recache`) is not. A value that cannot be is asked again, or ends the program where nobody can be asked. *Once*
means for a new model only; *every override* for a new model and whenever its settings are overridden; *with
`--all-questions`* the same, after the others and only with that flag. While a model trains, the questions of key `o`
end with the offer to ask these too.

## The order of a training

What users of DeepFaceLab settled on:

1. **Pretraining** on many people (`pretrain`), once for a new model, or a pretrained model from somebody else.
   Facesets with few profiles gain from `uniform_yaw` early on; good masks (XSeg) are trained and applied before.
2. **The pair**, `random_warp` on, everything else plain, until the preview hardly gets clearer. This is most of the
   time.
3. `lr_dropout` on until nothing moves any more, then off.
4. `random_warp` off, until the loss flattens; then `lr_dropout` on once more.
5. **GAN** last: `gan_power` 0.1 with most other options off. df models may take `true_face_power` 0.01 before it.

Make a backup (key `b`) before styles, true face and GAN: these can spoil a model. A liae model is reused for
another pair by deleting its `inter_AB` (`--reinit inter_AB`).

## What pretraining forces

While `pretrain` is on, both sides are drawn from `--pretraining-data-dir`, and these count whatever was chosen:
both flips and `uniform_yaw` on; `random_warp`, `lr_dropout`, `random_hsv_power`, `gan_power`, both style powers and
`ct_mode` off. The summary shows them as overrides; the choices come back when pretraining is switched off, which
also starts the iteration counter and the inters anew. `true_face_power` is not forced off, as in DeepFaceLab, though
its network rests meanwhile: leave it at 0 while pretraining.

## A training of AMP

AMP asks less: it always has AdaBelief, masked training and priority of eyes and mouth, and knows neither pretraining
nor styles. Its first stage is src on both sides (launcher `6) train AMP SRC-SRC`), until the previews are clear; then
the pair. After that the order above holds: warp off, `lr_dropout`, GAN.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="CLASS", help="only this model")


def table(model: str | None = None) -> str:
    """The document: the introduction, then a heading and a table per model."""
    from models import MODELS
    from models.running import RUNNING

    parts = [INTRODUCTION]
    for name, spec in MODELS.items():
        if model not in (None, name):
            continue
        like = next(other for other, known in MODELS.items() if known.rows == spec.rows)
        if like != name and model is None:
            parts.append(f"\n## {name}\n\nThe options of {like}.\n")
            continue
        own = [row for row in spec.rows if row not in RUNNING]
        absent = [f"`{row.key}`" for row in RUNNING if row not in spec.rows]
        but = f" but {', '.join(absent)}" if absent else ""
        parts.append(f"\n## {name}\n\n{markdown(own)}\nAnd those of [every training](#every-training){but}.\n")
        if settled := [f"`{row.key}` {row.show(row.default)}" for row in spec.rows if row.ask == "fixed"]:
            parts.append(f"\nSettled: {', '.join(settled)}.\n")
    return "".join([*parts, f"\n## Every training\n\n{markdown(RUNNING)}"])


def markdown(rows: Sequence[Option]) -> str:
    """The rows as a table."""
    from core.options import defaults, settle

    lines = [
        "| key | question | default | allowed | asked | what it does | when to use it |",
        "|---|---|---|---|---|---|---|",
    ]
    own = settle(rows, defaults(rows, {}, {}))
    for row in rows:
        if row.ask == "fixed":
            continue
        asked = {
            "create": "once", "always": "every override", "advance": "with `--all-questions`",
            "again": "every override of a saved model",
        }[row.ask]  # fmt: skip
        asked += f", {row.condition}" if row.condition else ""
        default = row.default_text or row.show(own[row.key])
        cells = (f"`{row.key}`", row.label, default, row.allowed(), asked, row.help, row.advice)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    print(table(args.model), end="")
    return 0
