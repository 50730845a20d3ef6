"""The configuration file of the fork MVE, read and written: options in six sections of a YAML file.

Keys are those of the options, or what MVE and its PyTorch trainer call them (`Option.aliases`). What those two know and
the model does not is left out and told, a line each; any other key is an error, since it is a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from core import yamltext
from core.options import NO, YES, Option, OptionError, find
from core.shown import PLAIN, plain, shown
from core.values import entries, read_table

SECTIONS = ("basic_param", "model_properties", "gan", "augmentations", "color_augs", "dataset_param")
_BY_GROUP = {
    "network": "model_properties", "loss": "model_properties", "training": "model_properties",
    "style": "model_properties", "memory": "model_properties", "gan": "gan", "cache": "dataset_param",
}  # fmt: skip
_BY_KEY = {
    "random_warp": "augmentations", "random_src_flip": "augmentations", "random_dst_flip": "augmentations",
    "random_hsv_power": "color_augs", "ct_mode": "color_augs", "random_color": "color_augs",
}  # fmt: skip

EITHER = {"eyes_prio": "eyes_mouth_prio", "mouth_prio": "eyes_mouth_prio"}
"""Two switches of MVE that are one here: it is on where one of them is."""
BOTH = {"random_flip": ("random_src_flip", "random_dst_flip")}

_NAMES = {"max_backups": "maximum_n_backups"}

_FACES = "the faces of the folders on the command line are taken, or their faceset.pak"
OTHERS = {
    # MVE
    "retraining_samples": "", "use_fp16": "mp_mode has float16 among its values",
    "random_downsample": "", "random_noise": "", "random_blur": "", "random_jpeg": "", "random_shadow": "",
    "shadow_low": "", "shadow_high": "", "shadow_brightness": "",
    "gan_smoothing": "", "gan_noise": "", "background_power": "", "random_color": "",
    "src_pak_name": _FACES, "dst_pak_name": _FACES,
    "super_warp": "", "quick_opt": "", "author_name": "",
    # MVE's PyTorch trainer
    "name": "the model's name is asked, or given with --force-model-name",
    "growing_stage": "", "morph_factor": "", "batch_dst_mixing": "",
    "loss": "", "color_augmentation": "", "gan_weight_decay": "",
    "rotation_range": "", "scale_range": "", "tx_range": "", "ty_range": "",
    "tensorboard": "--tensorboard DIR writes for TensorBoard",
}  # fmt: skip
"""Keys of MVE and MVE's PyTorch trainer that no option here may have, and what there is instead."""


def read(
    path: Path, rows: Sequence[Option], others: Collection[str], flag: str
) -> tuple[dict[str, Any], list[str]]:
    """Key of a row -> value, not checked yet, and lines about what is left out. others: keys that other models have.
    Raises OptionError for a file that is none, an unknown key, and one option given twice."""
    given: dict[str, Any] = {}
    lines: list[str] = []
    where = f"{flag} {path}"
    switches: dict[str, bool] = {}
    for section, name, value in entries(read_table(path, flag)):
        row = _row(rows, section, name)
        if row is None and name in SECTIONS and value is None:
            continue
        if row is None and (name == "gan_training" or _several(rows, name)):
            switches[name] = _switch(where, name, value)
        elif row is None:
            lines.append(f"{path.name}: {_left_out(where, rows, others, section, name)}")
        else:
            value = _one_for_both(where, name, value)
            if row.key in given and given[row.key] != value:
                raise OptionError(
                    f"{where}: {name}: {row.key} stands there twice, as {shown(given[row.key])} and {shown(value)}."
                )
            given[row.key] = value
    if switches:
        lines += [f"{path.name}: {line}" for line in _apply(switches, rows, given)]
    return given, lines


def _apply(switches: Mapping[str, bool], rows: Sequence[Option], given: dict[str, Any]) -> list[str]:
    """What the switches of MVE make of the options, and lines where that is not the same thing."""
    lines = []
    for name in switches:
        for key in _several(rows, name):
            given.setdefault(key, any(on for other, on in switches.items() if key in _several(rows, other)))
    if len({switches[name] for name in EITHER if name in switches}) > 1:
        lines.append("eyes_prio and mouth_prio are one option here, eyes_mouth_prio, which is y now.")
    if not switches.get("gan_training", True) and _row(rows, "", "gan_power") is not None:
        given["gan_power"] = 0
        lines.append("gan_training is off, so gan_power is 0.")
    return lines


def _row(rows: Sequence[Option], section: str, name: str) -> Option | None:
    """The row of a key or an alias; in the section gan the word `gan_` may be missing."""
    names = {alias: row for row in rows for alias in row.aliases} | {row.key: row for row in rows}
    return names.get(name) or (names.get(f"gan_{name}") if section == "gan" else None)


def _several(rows: Sequence[Option], name: str) -> tuple[str, ...]:
    """The options that a key of MVE stands for, where it is not one of them itself."""
    keys = (EITHER[name],) if name in EITHER else BOTH.get(name, ())
    return keys if all(_row(rows, "", key) for key in keys) else ()


def _left_out(where: str, rows: Sequence[Option], others: Collection[str], section: str, name: str) -> str:
    full = f"gan_{name}" if section == "gan" and name not in OTHERS else name
    if name in others:
        return f"{name} is left out: this model has no such option."
    if full in OTHERS or name in EITHER or name in BOTH:
        return f"{name} is left out: {OTHERS.get(full) or 'facesmith has no such option for this model'}."
    try:
        find(rows, name)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None
    raise AssertionError(name)  # a row of that name would have been taken


def _switch(where: str, name: str, value: Any) -> bool:
    word = str(plain(value)).lower()
    if word not in YES + NO:
        raise OptionError(f"{where}: {name}: got {shown(value)}, allowed is true or false.")
    return word in YES


def _one_for_both(where: str, name: str, value: Any) -> Any:
    """A value; of a list, one for src and one for dst, the one that both are."""
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]
    if type(plain(value)) not in PLAIN:
        raise OptionError(f"{where}: {name}: got {shown(value)}, allowed is one value, which counts for src and dst.")
    return value


def text(rows: Sequence[Option], values: Mapping[str, Any], full_name: str) -> str:
    """The file, with every option that is not for one start only, under MVE's name where it has one of its own."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for row in rows:
        if not row.once:
            section = _BY_KEY.get(row.key) or _BY_GROUP.get(row.group, "basic_param")
            sections[section][_NAMES.get(row.key, row.key)] = values[row.key]
    comment = f"Options of {full_name}, written by facesmith. --config-training-file reads them, and --set counts more."
    return yamltext.write({section: table for section, table in sections.items() if table}, comment)
