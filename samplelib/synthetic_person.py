"""Who a made-up person is and what they are doing: two frozen rows of numbers.

`Identity` holds everything that stays with a person (bone, skin, hair), `Scene` everything that does not (pose,
expression, light, backdrop). Rendering one scene with two identities is what gives a true swap, so neither may leak
into the other. Lengths are in the millimetres of the field's mean 3D head (73 from the midline to the ear).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Colour = tuple[float, float, float]  # BGR, 0..255
HairStyle = Literal["short", "long", "buzz", "fringe"]


@dataclass(frozen=True, slots=True)
class Identity:
    """One made-up person. Factors are relative to the mean head, *_mm are offsets from it; colours are BGR 0..255."""

    index: int
    name: str
    seed: int
    face_width: float = 1.0
    jaw_width: float = 1.0
    chin_width: float = 1.0
    face_length_mm: float = 0.0
    chin_out_mm: float = 0.0
    cheek_mm: float = 0.0
    brow_ridge_mm: float = 0.0
    eye_size: float = 1.0
    eye_gap_mm: float = 0.0
    eye_tilt_mm: float = 0.0
    lid_fold: float = 0.6
    brow_height_mm: float = 0.0
    brow_arch_mm: float = 0.0
    brow_tilt_mm: float = 0.0
    brow_weight: float = 1.0
    nose_length_mm: float = 0.0
    nose_width: float = 1.0
    nose_out_mm: float = 0.0
    nose_hump_mm: float = 0.0
    mouth_width: float = 1.0
    lip_upper: float = 1.0
    lip_lower: float = 1.0
    ear_mm: float = 9.0
    skin: Colour = (150.0, 180.0, 225.0)
    lip: Colour = (110.0, 110.0, 190.0)
    iris: Colour = (90.0, 110.0, 90.0)
    hair: Colour = (40.0, 50.0, 70.0)
    brow: Colour = (40.0, 50.0, 70.0)
    shirt: Colour = (120.0, 90.0, 60.0)
    lashes: float = 0.5
    blush: float = 0.3
    freckles: float = 0.0
    beard: float = 0.0
    stubble: float = 0.0
    lines: float = 0.2
    hair_style: HairStyle = "short"
    hairline_mm: float = 0.0
    hair_volume_mm: float = 12.0
    part: float = 0.3


@dataclass(frozen=True, slots=True)
class Scene:
    """One moment, free of who is in it. Angles in degrees (DFL's signs, see facelib.landmarks.pose), rest in 0..1.

    `offset` is the head's shift in frame widths, `scale` multiplies the head's size, `light` points from the head to
    the key light (x right, y down, z away from the camera), `key` and `fill` are BGR intensities.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    blink: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)
    mouth_open: float = 0.0
    smile: float = 0.0
    pucker: float = 0.0
    brow_raise: float = 0.0
    light: tuple[float, float, float] = (-0.4, -0.5, -0.8)
    key: Colour = (0.75, 0.78, 0.8)
    fill: Colour = (0.42, 0.4, 0.38)
    offset: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    distance: float = 900.0
    backdrop: int = 0
    grain: float = 2.0


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random moment: yaw within ±60°, pitch within ±25°, mostly near the camera, as in a talking video.

    The draw is a fixed sequence of calls, so the same generator state gives the same scene for every identity.
    """
    yaw = float(np.clip(rng.normal(0.0, 27.0), -60.0, 60.0))
    pitch = float(np.clip(rng.normal(0.0, 9.0), -25.0, 25.0))
    roll = float(np.clip(rng.normal(0.0, 6.0), -20.0, 20.0))
    lids = float(rng.choice([0.0, 0.12, 0.3, 1.0], p=[0.27, 0.45, 0.2, 0.08]))
    wink = float(rng.choice([0.0, 1.0], p=[0.96, 0.04]))
    mouth = float(max(0.0, rng.beta(0.7, 1.6) * 1.2 - 0.15))
    smile = float(np.clip(rng.normal(0.25, 0.4), -0.35, 1.0))
    pucker = float(rng.choice([0.0, 1.0], p=[0.88, 0.12]) * rng.uniform(0.3, 1.0))
    azimuth, height = rng.uniform(-1.1, 1.1), rng.uniform(-0.9, 0.15)
    warm = rng.normal(0.0, 0.06, 2)
    strength, fill = rng.uniform(0.5, 0.85), rng.uniform(0.28, 0.5)
    return Scene(
        yaw=yaw, pitch=pitch, roll=roll,
        blink=(lids, max(lids, wink)),
        gaze=(float(np.clip(rng.normal(-yaw / 90.0, 0.35), -1, 1)), float(np.clip(rng.normal(0.0, 0.3), -1, 1))),
        mouth_open=min(mouth, 1.0), smile=smile, pucker=pucker if smile < 0.4 else 0.0,
        brow_raise=float(np.clip(rng.normal(0.1, 0.4), -0.6, 1.0)),
        light=(float(np.sin(azimuth)), float(height), float(-np.cos(azimuth))),
        key=(float(strength * (1 - warm[0])), float(strength), float(strength * (1 + warm[0]))),
        fill=(float(fill * (1 - warm[1])), float(fill), float(fill * (1 + warm[1]))),
        offset=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
        scale=float(rng.uniform(0.9, 1.08)), distance=float(rng.uniform(700.0, 1500.0)),
        backdrop=int(rng.integers(1 << 31)), grain=float(rng.uniform(0.5, 3.5)),
    )


_ROWAN = Identity(
    index=0, name="Rowan", seed=11, face_width=0.95, jaw_width=0.88, chin_width=0.94, face_length_mm=-0.5, cheek_mm=2.0,
    brow_ridge_mm=-1.5, eye_size=1.1, eye_gap_mm=1.0, eye_tilt_mm=1.6, lid_fold=0.8, brow_height_mm=2.0,
    brow_arch_mm=2.2, brow_tilt_mm=1.0, brow_weight=0.62, nose_length_mm=-3.5, nose_width=0.8, nose_out_mm=-4.0,
    nose_hump_mm=-1.2, mouth_width=0.94, lip_upper=0.92, lip_lower=1.04, ear_mm=7.0,
    skin=(168.0, 192.0, 234.0), lip=(104.0, 90.0, 188.0), iris=(96.0, 150.0, 92.0), hair=(30.0, 66.0, 148.0),
    brow=(48.0, 78.0, 130.0), shirt=(128.0, 118.0, 52.0), lashes=1.0, blush=0.75, freckles=0.8, lines=0.05,
    hair_style="long", hairline_mm=-2.0, hair_volume_mm=15.0, part=-0.28,
)
_BRUNO = Identity(
    index=1, name="Bruno", seed=23, face_width=1.05, jaw_width=1.11, chin_width=1.16, face_length_mm=3.5,
    chin_out_mm=2.5, cheek_mm=-1.0, brow_ridge_mm=3.0, eye_size=0.93, eye_gap_mm=-0.5, eye_tilt_mm=-0.8, lid_fold=0.4,
    brow_height_mm=-2.5, brow_arch_mm=-0.6, brow_tilt_mm=-0.8, brow_weight=1.5, nose_length_mm=2.5, nose_width=1.2,
    nose_out_mm=2.5, nose_hump_mm=1.8, mouth_width=1.06, lip_upper=0.8, lip_lower=0.9, ear_mm=11.0,
    skin=(104.0, 142.0, 190.0), lip=(98.0, 104.0, 158.0), iris=(34.0, 58.0, 92.0), hair=(22.0, 22.0, 26.0),
    brow=(20.0, 20.0, 24.0), shirt=(70.0, 62.0, 58.0), lashes=0.3, blush=0.15, beard=0.85, stubble=0.8, lines=0.7,
    hair_style="short", hairline_mm=7.0, hair_volume_mm=14.0, part=0.32,
)

_SKINS = ((178, 199, 238), (160, 188, 232), (140, 172, 218), (118, 155, 205), (90, 128, 180), (66, 98, 150),
          (48, 72, 112))
_HAIRS = ((22, 22, 26), (30, 38, 54), (34, 52, 84), (30, 66, 148), (92, 140, 186), (132, 172, 206), (150, 152, 156))
_IRISES = ((34, 58, 92), (40, 80, 120), (96, 150, 92), (170, 140, 96), (140, 140, 128))


def identity(index: int) -> Identity:
    """Person number `index`: 0 and 1 are tuned by hand to be told apart at a glance, the rest drawn from their number.

    Raises ValueError for a negative number.
    """
    if index < 0:
        raise ValueError(f"identity {index}: people are numbered from 0; give 0 or more")
    if index < 2:
        return (_ROWAN, _BRUNO)[index]
    rng = np.random.Generator(np.random.Philox([index, 0xFACE]))

    def near(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -2.0, 2.0))

    def tint(colours: tuple[tuple[int, int, int], ...], limit: int | None = None) -> Colour:
        base = np.array(colours[int(rng.integers(limit or len(colours)))], float) * rng.uniform(0.92, 1.06)
        blue, green, red = np.clip(base + rng.normal(0, 3, 3), 8, 245)
        return float(blue), float(green), float(red)

    masculine = bool(rng.random() < 0.5)
    lean = 1.0 if masculine else -1.0
    skin = tint(_SKINS)
    dark = skin[2] < 190
    hair = tint(_HAIRS, 3 if dark else None)
    beard = float(rng.uniform(0.3, 1.0)) if masculine and rng.random() < 0.5 else 0.0
    styles: tuple[HairStyle, ...] = ("short", "buzz", "short", "fringe")
    if not masculine:
        styles = ("long", "long", "fringe", "short")
    blue, green, red = skin
    return Identity(
        index=index, name=f"Person {index}", seed=index * 7 + 5,
        face_width=near(1.0 + 0.02 * lean, 0.035), jaw_width=near(1.0 + 0.05 * lean, 0.05),
        chin_width=near(1.0 + 0.08 * lean, 0.09), face_length_mm=near(1.5 + lean, 2.5), chin_out_mm=near(lean, 1.2),
        cheek_mm=near(0.5, 1.5), brow_ridge_mm=near(1.2 * lean, 1.0), eye_size=near(1.03 - 0.05 * lean, 0.06),
        eye_gap_mm=near(0.0, 1.2), eye_tilt_mm=near(-0.3 * lean, 1.0), lid_fold=float(rng.uniform(0.1, 0.9)),
        brow_height_mm=near(-1.0 * lean, 1.5), brow_arch_mm=near(0.5 - 0.6 * lean, 1.0), brow_tilt_mm=near(0.0, 1.0),
        brow_weight=near(1.0 + 0.3 * lean, 0.2), nose_length_mm=near(0.0, 2.0), nose_width=near(1.0 + 0.06 * lean, 0.1),
        nose_out_mm=near(0.4 * lean, 1.8), nose_hump_mm=near(0.2 * lean, 1.0), mouth_width=near(1.0, 0.06),
        lip_upper=near(1.0 - 0.1 * lean, 0.14), lip_lower=near(1.0 - 0.08 * lean, 0.12), ear_mm=near(8.5, 1.5),
        skin=skin, lip=(blue * 0.72 + 2, green * 0.6 + 2, red * 0.82 + 4), iris=tint(_IRISES, 2 if dark else None),
        hair=hair, brow=(hair[0] * 0.8, hair[1] * 0.8, hair[2] * 0.8), shirt=tint(_IRISES + _HAIRS),
        lashes=0.35 if masculine else 0.9, blush=float(rng.uniform(0.1, 0.6)),
        freckles=float(rng.uniform(0.3, 1.0)) if not dark and rng.random() < 0.3 else 0.0,
        beard=beard, stubble=float(rng.uniform(0.2, 0.8)) if masculine else 0.0, lines=float(rng.uniform(0.0, 0.8)),
        hair_style=styles[int(rng.integers(len(styles)))], hairline_mm=near(1.0 + lean, 3.0),
        hair_volume_mm=near(12.0, 2.0), part=float(rng.uniform(-0.35, 0.35)),
    )
