"""The words between data and model: what is asked of a sample, and what comes back.

Shared by samplelib (which makes batches) and models (which consume them), so that neither imports the
other. No torch here: a `Side` holds whatever array type it is given.

`src` is the person whose face is put on, `dst` the person who is replaced. (faceswap's A is our dst, its B our src.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ARRAYS = {"warped": 3, "target": 3, "mask": 1, "mask_em": 1, "image": 3, "label": 1, "plain": 3}
"""Arrays a sample can be asked for, with their channels: network input, what it should draw, full face mask, eyes and
mouth mask; `image` and `label`, a labelled face worn in every way (samplelib.labelled) and its mask of 0 and 1;
`plain`, the face as it is."""


def array_channels(name: str, channels: int = 3) -> int:
    """Channels of an array for a model whose pictures have `channels`: 3, or 1 where they are grey."""
    return min(ARRAYS[name], channels)


KINDS = {"image": 3, "colours": 3, "mask": 1, "mask_em": 1, "label": 1}
"""What a face can be prepared as, in 8 bits, with the channels: the picture, what another face takes its colours from,
the full face mask, eyes and mouth inside it, what the user labelled as face."""


def kind_shape(kind: str, size: int, *before: int) -> tuple[int, ...]:
    """(*before, size, size, 3) of pictures, (*before, size, size) of masks."""
    return (*before, size, size, KINDS[kind]) if KINDS[kind] > 1 else (*before, size, size)


@dataclass(frozen=True)
class SampleRequest:
    """What one side of a model wants of every sample.

    names: keys of `ARRAYS`, in the order of the batch. resolution: pixels. face_type: DFL's long name
    (`whole_face`). flip: mirror with probability 0.4. random_warp: bend the `warped` image only.
    uniform_yaw: draw every yaw bin equally often. channels: 3, or 1 for grey pictures, whose colours are transferred
    and shifted before they go. ct_mode: colour transfer (`core.imagelib.color_transfer`) from a
    random face of side `ct_from` onto `warped` and `target`. hsv_power: random shift of hue, saturation and light of
    `warped` (0 = none). The ranges are DFL's augmentation limits: rotation in degrees, scale as +-fraction, shift as
    +-fraction of the width. plain_share: how many labelled faces in 1 are left as they are, but for the flip.
    """

    resolution: int
    face_type: str
    names: tuple[str, ...] = ("warped", "target", "mask", "mask_em")
    flip: bool = False
    random_warp: bool = True
    uniform_yaw: bool = False
    ct_mode: str = "none"
    ct_from: str = ""
    hsv_power: float = 0.0
    rotation: float = 10.0
    scale: float = 0.15
    shift: float = 0.05
    channels: int = 3
    plain_share: float = 0.0

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of an array of a sample."""
        return array_channels(name, self.channels), self.resolution, self.resolution

    @property
    def labelled(self) -> bool:
        """Whether it wants faces that somebody labelled."""
        return "label" in self.names

    def partner(self, side: str) -> tuple[str, tuple[str, ...]] | None:
        """The side whose faces take part in samples of `side`, and what of them; None where none do."""
        if self.labelled:
            return side, ("image", "label")
        return (self.ct_from, ("colours",)) if self.ct_mode != "none" else None


class _Named:
    """An ordered, attribute-accessible collection: `side.mask`, `for name, array in side.items()`."""

    def __init__(self, **entries: Any) -> None:
        self.__dict__.update(entries)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self.__dict__) or 'nothing'}")

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.__dict__)})"

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(self.__dict__.items())


def unnamed(row: int) -> str:
    """The name of a face that has none."""
    return ""


class Side(_Named):
    """The arrays of one side, each (N, C, H, W) float32, BGR, [0, 1]: `warped`, `target`, `mask`, `mask_em`.

    name_of: row -> the file name of that face, looked up only when it is asked for."""

    __slots__ = ("name_of",)  # beside the arrays, not one of them
    name_of: Callable[[int], str]

    def __init__(self, **entries: Any) -> None:
        super().__init__(**entries)
        self.name_of = unnamed

    def named(self, name_of: Callable[[int], str]) -> Side:
        """This side, with names."""
        self.name_of = name_of
        return self

    def map(self, function: Callable[[Any], Any]) -> Side:
        return Side(**{name: function(array) for name, array in self.items()}).named(self.name_of)


class Batch(_Named):
    """The sides of one batch: `src` and `dst` (or one side `face`)."""

    def map(self, function: Callable[[Any], Any]) -> Batch:
        return Batch(**{name: side.map(function) for name, side in self.items()})


@dataclass(frozen=True)
class Swap:
    """A swap of dst images: face (N, C, H, W) drawn by the src decoder, and both masks (N, 1, H, W); [0, 1]."""

    face: Any
    src_mask: Any
    dst_mask: Any


Captions = dict[str, list[list[str]]]
"""Names of a preview's tiles: title of a page -> rows of texts, as the page has rows of cells; "" for none, and rows or
texts may be missing at the end."""

Page = tuple[str, list[list[Any]]]
"""A preview page: its title, and rows of cells; a cell is (H, W, 3) uint8 BGR, all cells of a page alike."""
