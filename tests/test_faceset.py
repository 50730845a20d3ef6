"""Facesets: genuine and odd faces load, broken ones give one line each, and nothing is decoded to build the list."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.dflfile import dumps
from facelib.dfljpg import aligned_metadata, embed
from samplelib import pixels
from samplelib.facedata import FaceReadError, check_face
from samplelib.faceset import Faceset, FacesetError, decode, decode_mask, read_bytes, read_face

Make = Callable[..., bytes]


@pytest.fixture(scope="module")
def points(golden: Path) -> np.ndarray:
    """(68, 2) landmarks in a picture of 256 pixels."""
    return np.load(golden / "samples" / "landmarks.npz")["syn_landmarks"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(3)
    return cv2.resize(rng.integers(0, 255, (16, 16, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def face(points: np.ndarray, picture: np.ndarray) -> Make:
    """Makes the bytes of an aligned JPG; keywords replace metadata, None removes them."""

    def make(**changes: Any) -> bytes:
        metadata = aligned_metadata(
            "whole_face", points, source_filename="frame.png", source_rect=(0, 0, 9, 9), source_landmarks=points
        )
        metadata = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
        return embed(cv2.imencode(".jpg", picture)[1].tobytes(), metadata)

    return make


@pytest.fixture
def warned() -> list[str]:
    return []


def test_a_folder_of_faces(tmp_path: Path, face: Make, points: np.ndarray, warned: list[str]) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24] = 255
    polygon = np.array([(1, 2), (3, 4), (5, 1)], np.float32)
    folder = tmp_path / "лица 顔"
    folder.mkdir()
    (folder / "b имя.JPG").write_bytes(face(eyebrows_expand_mod=1.5, seg_ie_polys=[(1, polygon)]))
    (folder / "a.jpeg").write_bytes(
        face(face_type=None, xseg_mask=cv2.imencode(".png", mask)[1].ravel(), source_filename="../../etc/x.png")
    )
    (folder / "c.png").write_bytes(b"whatever")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "folder.jpg").mkdir()
    faceset = Faceset.open(folder, warned.append)
    assert warned == [
        "c.png: aligned faces are JPG files, this is none; skipped",
        "folder.jpg: a folder, not a picture; skipped",
    ]
    a, b = faceset.samples
    assert (a.filename, a.face_type, a.source_filename, a.person_name) == ("a.jpeg", "full_face", "x.png", None)
    assert (b.filename, b.face_type, b.shape, b.eyebrows_expand_mod) == ("b имя.JPG", "whole_face", (256, 256), 1.5)
    np.testing.assert_array_equal(b.landmarks, points.astype(np.float32))
    assert b.seg_ie_polys[0][0] == 1
    np.testing.assert_array_equal(b.seg_ie_polys[0][1], polygon)
    found = decode_mask(a)
    assert found is not None and found.shape == (32, 32, 1) and found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], mask / np.float32(255))
    assert decode_mask(b) is None
    assert read_bytes(b).startswith(b"\xff\xd8") and read_face(b).shape == (256, 256, 3)
    assert faceset[-1] is not None and len(faceset[0:2]) == 2
    np.testing.assert_allclose(faceset.yaws(), [a.yaw, b.yaw], rtol=1e-6)
    assert faceset.summary() == [
        "2 faces: 1 full_face 256x256, 1 whole_face 256x256",
        "1 with applied XSeg masks",
        "1 with labelled polygons",
    ]


def test_no_pixel_is_decoded_to_build_the_list(
    tmp_path: Path, face: Make, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(face())
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert len(Faceset.open(tmp_path, warned.append)) == 1


def alike(a: Faceset, b: Faceset) -> None:
    assert len(a) == len(b) and a.folder == b.folder
    for one, two in zip(a, b, strict=True):
        for name in ("filename", "path", "offset", "size", "face_type", "shape", "xseg_mask", "person_name"):
            assert getattr(one, name) == getattr(two, name)
        np.testing.assert_array_equal(one.landmarks, two.landmarks)
        assert len(one.seg_ie_polys) == len(two.seg_ie_polys)


def test_other_processes_get_the_same_from_arrays(tmp_path: Path, face: Make, warned: list[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(face(seg_ie_polys={"polys": [{"type": 0, "pts": np.ones((3, 2), np.float32)}]}))
    (tmp_path / "b.jpg").write_bytes(face(xseg_mask=cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].ravel()))
    faceset = Faceset.open(tmp_path, warned.append)
    arrays = faceset.to_arrays()
    assert all(array.dtype.kind in "iuf" for array in arrays.values())
    alike(faceset, Faceset.from_arrays(arrays))
    with tempfile.TemporaryDirectory() as folder:
        faceset.save(Path(folder))
        alike(faceset, Faceset.restore(Path(folder)))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no landmarks": ({"landmarks": None}, "no landmarks"),
    "five": ({"landmarks": [[1.0, 2.0]] * 5}, "5 landmarks, 68"),
    "ninety-eight": ({"landmarks": np.random.default_rng(0).random((98, 2))}, "98 landmarks"),
    "nan": ({"landmarks": [[float("nan"), 1.0]] * 68}, "finite"),
    "infinite": ({"landmarks": [[1.0, float("inf")]] * 68}, "finite"),
    "equal": ({"landmarks": [[50.0, 50.0]] * 68}, "in one place"),
    "strings": ({"landmarks": [["1", "2"]] * 68}, "no list of points"),
    "ragged": ({"landmarks": [[1.0, 2.0], [1.0]]}, "no list of points"),
    "far": ({"landmarks": np.random.default_rng(0).random((68, 2)) + 1e6}, "far outside"),
    "type": ({"face_type": "elbow"}, "'elbow' is unknown; known: half_face"),
    "number": ({"face_type": 77}, "face_type 77 is unknown"),
    "mask": ({"xseg_mask": np.zeros(0, np.uint8)}, "no PNG or JPEG"),
    "polygons": ({"seg_ie_polys": "garbage"}, "unreadable"),
    "polygon": ({"seg_ie_polys": [(7, [[1.0, 2.0]])]}, "neither includes nor excludes"),
    "brows": ({"eyebrows_expand_mod": float("nan")}, "no sensible number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_face_data_that_mean_nothing_give_one_line(case: str, tmp_path: Path, face: Make, warned: list[str]) -> None:
    changes, reason = REFUSED[case]
    (tmp_path / "bad.jpg").write_bytes(face(**changes))
    (tmp_path / "good.jpg").write_bytes(face())
    assert [s.filename for s in Faceset.open(tmp_path, warned.append)] == ["good.jpg"]
    assert len(warned) == 1 and warned[0].startswith("bad.jpg: ") and reason in warned[0]


def test_useless_folders_say_what_they_hold(tmp_path: Path, picture: np.ndarray, warned: list[str]) -> None:
    with pytest.raises(FacesetError, match="no such folder"):
        Faceset.open(tmp_path / "absent", warned.append)
    (tmp_path / "sub").mkdir()
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(FacesetError, match=r"no pictures, 1 other files, 1 folders\. Extract faces"):
        Faceset.open(tmp_path, warned.append)
    for index in range(60):
        (tmp_path / f"{index:03}.jpg").write_bytes(cv2.imencode(".jpg", picture[:32, :32])[1].tobytes())
    with pytest.raises(FacesetError, match=r"60 pictures, none usable \(60: a picture without DeepFaceLab"):
        Faceset.open(tmp_path, warned.append)
    assert len(warned) == 51 and "10 more are skipped" in warned[-1]


def test_names_cannot_disturb_a_terminal(tmp_path: Path, face: Make, warned: list[str]) -> None:
    (tmp_path / "a\x1b[2J.jpg").write_bytes(b"")
    (tmp_path / "b\x1b[2J.jpg").write_bytes(face(source_filename="x\n\x1b[1m.png"))
    faceset = Faceset.open(tmp_path, warned.append)
    assert warned == ["a?[2J.jpg: the file is empty; skipped"]
    assert (faceset[0].filename, faceset[0].source_filename) == ("b?[2J.jpg", "x??[1m.png")
    assert read_face(faceset[0]).shape == (256, 256, 3)


# ---- packs


def pack(jpgs: list[bytes], points: np.ndarray, version: int = 1, **changes: Any) -> bytes:
    faces = [
        {"filename": f"{i}.jpg", "face_type": 4, "shape": (256, 256, 3), "landmarks": points.tolist(), **changes}
        for i in range(len(jpgs))
    ]
    config = dumps(faces)
    offsets = np.cumsum([0, *map(len, jpgs)])
    start = 16 + len(config) + 8 * len(offsets)
    offsets[-1] += start  # as DFL writes it
    return struct.pack("<QQ", version, len(config)) + config + offsets.astype("<u8").tobytes() + b"".join(jpgs)


def test_a_pack_wins_over_files(tmp_path: Path, face: Make, points: np.ndarray, warned: list[str]) -> None:
    jpgs = [face(), face(face_type="head"), face()]
    (tmp_path / "faceset.pak").write_bytes(pack(jpgs, points, person_name="../ann"))
    (tmp_path / "other.jpg").write_bytes(face())
    faceset = Faceset.open(tmp_path, warned.append)
    assert [read_bytes(sample) for sample in faceset] == jpgs
    assert faceset[1].face_type == "whole_face"  # what the pack says, as in DFL
    assert faceset.persons() == ["ann"] and faceset[2].person_name == "ann"
    alike(faceset, Faceset.from_arrays(faceset.to_arrays()))
    assert warned == []


def test_names_in_packs_of_strangers_are_shown_short_and_printable(
    tmp_path: Path, face: Make, points: np.ndarray, warned: list[str]
) -> None:
    for name in ("\ud800\x1b[2J.jpg", "x" * 70_000):
        changes = {"filename": name, "source_filename": name, "person_name": name}
        (tmp_path / "faceset.pak").write_bytes(pack([face()], points, **changes))
        (sample,) = Faceset.open(tmp_path, warned.append)
        for shown in (sample.filename, sample.source_filename, sample.person_name):
            assert shown is not None and shown.isprintable() and len(shown) <= 255
        (tmp_path / "faceset.pak").write_bytes(pack([face()], points, **changes, landmarks=None))
        with pytest.raises(FacesetError):
            Faceset.open(tmp_path, warned.append)
        line = warned.pop()
        assert line.isprintable() and len(line) < 400


def test_broken_packs_are_errors_with_advice(tmp_path: Path, face: Make, points: np.ndarray, warned: list[str]) -> None:
    whole = pack([face(), face()], points)
    claims = whole[:8] + struct.pack("<Q", 1 << 40) + whole[16:]
    for data, reason in (
        (b"", "first 16 bytes"),
        (whole[:100], "claims"),
        (claims, "claims 1,099,511,627,776 bytes"),
        (pack([face()], points, version=2), "version 2"),
        (pack([], points), "holds no faces"),
        (pack([face()], points, landmarks=None), "1 faces in faceset.pak, none usable"),
    ):
        (tmp_path / "faceset.pak").write_bytes(data)
        with pytest.raises(FacesetError, match=f"{reason}.*ack the faces again"):
            Faceset.open(tmp_path, warned.append)
    (tmp_path / "faceset.pak").write_bytes(whole[: -len(face())])
    assert len(Faceset.open(tmp_path, warned.append)) == 1
    assert warned[-1] == "faceset.pak/1.jpg: its picture lies outside the pack; skipped"


# ---- pixels


def test_pictures_that_are_cut_off_are_found(face: Make, picture: np.ndarray) -> None:
    data = face()
    np.testing.assert_array_equal(decode(data), decode(data + b"trailing"))
    np.testing.assert_array_equal(decode(data[:-2]), decode(data))  # complete but for its end marker
    half, three_quarters = len(data) // 2, len(data) * 3 // 4
    for cut in (data[: len(data) - 200], data[:half], data[:half] + b"\xff\xd9", data[:three_quarters] + b"\xff\xd9"):
        with pytest.raises(FaceReadError, match="cut off"):
            decode(cut)
    flat = np.full((64, 64, 3), 200, np.uint8)
    for image in (flat, flat // 200, picture[:, :, 0]):  # flat and grey pictures are none of that
        assert decode(cv2.imencode(".jpg", image)[1].tobytes()).shape == (*image.shape[:2], 3)


def test_flat_backgrounds_are_decoded_once(picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture.copy()
    image[160:] = (200, 180, 90)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    calls: list[int] = []
    real = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: calls.append(1) or real(*given))
    decode(data)
    assert len(calls) == 1


def test_hostile_pixels_are_refused() -> None:
    png = bytearray(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(FaceReadError, match="claims 60000x60000"):
        pixels.decode_mask_bytes(bytes(png))
    with pytest.raises(FaceReadError, match="not a JPEG"):
        decode(bytes(png))
    with pytest.raises(FaceReadError, match="sides of 16 to 4096"):
        check_face({}, (30000, 30000))


def test_a_mask_of_five_kilobytes_cannot_take_gigabytes() -> None:
    """OpenCV allocates what a chunk claims to hold before it looks for it; and it reads animations, profiles, text."""
    png = cv2.imencode(".png", np.full((9, 9), 77, np.uint8))[1].tobytes()
    for where in (33, len(png) - 12):  # a chunk in the middle, and the last
        claims = png[:where] + struct.pack(">I", 0xB0000000) + png[where + 4 :]
        for data in (claims, png[:where], png[:where] + b"\0"):
            with pytest.raises(FaceReadError, match="cut off or damaged"):
                pixels.decode_mask_bytes(data)
    with pytest.raises(FaceReadError, match="cut off or damaged"):
        pixels.decode_mask_bytes(png[:33] + png[8:])  # two headers
    more = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"acTL", struct.pack(">II", 5, 0)), (b"tEXt", b"a\0b"), (b"iCCP", b"x\0\0" + bytes(9)))
    )
    np.testing.assert_array_equal(pixels.decode_mask_bytes(png[:33] + more + png[33:]), np.float32(77 / 255))


def test_segments_for_other_programs_are_not_decoded(face: Make) -> None:
    data = face()
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(40)
    segments = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(exif) + 2) + exif for m in (0xE1, 0xE2, 0xFE))
    np.testing.assert_array_equal(decode(data[:20] + segments + data[20:]), decode(data))


# ---- the recorded faces


def test_odd_but_valid_faces_load(shared: Path, warned: list[str]) -> None:
    folders = ("odd_valid", *(f"masked/{n}" for n in ("xseg", "seg_ie_polys", "both", "odd", "both_pak", "person_pak")))
    for name in (*folders, *(f"types/{n}" for n in ("head", "full_face", "half_face", "midfull_face", "mark_only"))):
        folder = shared / "faces" / name
        faceset = Faceset.open(folder, warned.append)
        assert len(faceset) >= len([p for p in folder.iterdir() if p.suffix.lower() == ".jpg"])
        for sample in faceset:
            assert read_face(sample).shape[:2] == sample.shape
            mask = decode_mask(sample)
            assert mask is None or 0 <= mask.min() <= mask.max() <= 1
    assert warned == []


def test_bad_faces_load_as_what_they_are_or_give_one_line(shared: Path, warned: list[str]) -> None:
    folder = shared / "faces" / "bad"
    faceset = Faceset.open(folder, warned.append)
    names = {p.name for p in folder.iterdir() if p.suffix == ".jpg"}
    refused = {line.split(": ")[0] for line in warned}
    loaded = {sample.filename for sample in faceset}
    assert refused | loaded == names and not refused & loaded and len(warned) == len(refused)
    assert {"cmyk_with_dfl.jpg", "grayscale_with_dfl.jpg", "exif_orientation6_with_dfl.jpg"} <= loaded
    types = {sample.filename: sample.face_type for sample in faceset}
    assert types["dfl_missing_face_type_dfl_defaults_to_full_face.jpg"] == "full_face"
    broken = set()
    for sample in faceset:
        try:
            assert read_face(sample).shape == (*sample.shape, 3)
            decode_mask(sample)
        except FaceReadError:
            broken.add(sample.filename)
    assert broken == {
        "dfl_xseg_mask_corrupt_png.jpg",
        "header_says_512_but_scan_is_256.jpg",
        "jpg_cut_scan_zeroed_tail.jpg",
        "truncated_half_of_scan.jpg",
    }
    assert not [p for p in Path(tempfile.gettempdir()).iterdir() if "pwned_by_pickle" in p.name]


def test_bad_packs_never_crash(shared: Path, warned: list[str]) -> None:
    good = 0
    for folder in sorted((shared / "faces" / "bad").glob("pak_*")):
        try:
            faceset = Faceset.open(folder, warned.append)
        except FacesetError as error:
            assert str(folder) in str(error) and "Pack the faces again" in str(error)
        else:
            good += 1
            for sample in faceset:
                assert sample.path == folder / "faceset.pak"
                assert read_face(sample).shape[:2] == sample.shape
    assert good == 4
