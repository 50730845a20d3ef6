"""`main.py videoed timelapse` on made-up pictures: what is in the video, which pages, what is refused."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests_support import ROOT

from core.history import COMMENT, jpeg
from core.options import OptionError
from core.terminal import ListTerminal
from main import main
from mainscripts.timelapse import find_page, pictures, spread


def draw(folder: Path, count: int, size: tuple[int, int] = (151, 97)) -> None:
    """Pictures of rising brightness, and what else lies in such a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        level = np.full((*size, 3), 255 * number // max(1, count - 1), np.uint8)
        (folder / f"{(number + 1) * 1000:07d}.jpg").write_bytes(jpeg(level))
    (folder / "_last.jpg").write_bytes(jpeg(level))
    (folder / "0000500.jpg.tmp").write_bytes(b"")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A model folder, as far as its name goes, with the history of two pages."""
    folder = tmp_path / "wörk space" / "model"
    for page in ("SAEHD", "SAEHD masked"):
        draw(folder / "mine_SAEHD_history" / page, 12)
    (folder / "mine_SAEHD_data.dat").touch()
    return folder


def make(*words: str) -> int:
    return main(["videoed", "timelapse", *words])


def test_a_video_of_every_picture(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av", reason="makes a video (video extra)")
    file = history.parent / "learned é.mp4"
    assert make("--model-dir", str(history), "--output-file", str(file), "--fps", "5") == 0
    told = capsys.readouterr().out
    assert "SAEHD: 12 pictures, 2.4 s" in told and f"Written: {file}" in told
    assert [path.name for path in history.parent.iterdir() if path.is_file()] == [file.name]
    with av.open(str(file)) as video:
        assert video.metadata["comment"] == COMMENT
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.width, stream.height) == ("h264", 5, 98, 180)
        frames = [frame.to_ndarray(format="bgr24") for frame in video.decode(stream)]
    levels = [frame[10:140, 10:80].mean() for frame in frames]
    assert len(frames) == 12 and levels == sorted(levels) and levels[0] < 5 and levels[-1] > 250
    assert all(frame[155:].max() > 120 for frame in frames), "the iteration is missing"
    assert any((one[155:] != other[155:]).mean() > 0.02 for one, other in itertools.pairwise(frames))


@pytest.mark.parametrize(("codec", "suffix"), [("h265", "mkv"), ("h265", "mp4"), ("vp9", "webm"), ("av1", "mp4")])
def test_other_codecs(codec: str, suffix: str, history: Path, capfd: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av", reason="makes a video (video extra)")
    file = history / f"v.{suffix}"
    words = ["--input-dir", str(history / "mine_SAEHD_history" / "SAEHD masked"), "--quality", "40", "--codec", codec]
    assert make(*words, "--output-file", str(file), "--max-seconds", "1", "--fps", "4") == 0
    assert capfd.readouterr().err == "", "the encoder prints"
    with av.open(str(file)) as video:
        assert {key.lower(): value for key, value in video.metadata.items()}["comment"] == COMMENT
        assert len([*video.decode(video=0)]) == 4
        decoder = video.streams.video[0].codec_context.name
        assert {"h265": "hevc", "vp9": "vp9", "av1": "av1"}[codec] in decoder


def test_damaged_and_odd_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    av = pytest.importorskip("av", reason="makes a video (video extra)")
    draw(tmp_path / "page", 4)
    (tmp_path / "page" / "0002000.jpg").write_bytes(b"no picture")
    (tmp_path / "page" / "0003000.jpg").write_bytes(b"")
    (tmp_path / "page" / "0004000.jpg").write_bytes(jpeg(np.full((300, 500, 3), 255, np.uint8)))
    file = tmp_path / "v.mp4"
    assert make("--input-dir", str(tmp_path / "page"), "--output-file", str(file)) == 0
    assert "Left out, as they cannot be read: 0002000.jpg, 0003000.jpg" in capsys.readouterr().out
    with av.open(str(file)) as video:
        assert len([*video.decode(video=0)]) == 2
    before = file.read_bytes()
    (tmp_path / "page" / "0001000.jpg").write_bytes(b"")
    (tmp_path / "page" / "0004000.jpg").write_bytes(b"")
    assert make("--input-dir", str(tmp_path / "page"), "--output-file", str(file)) == 1
    assert "None of the pictures" in capsys.readouterr().err
    assert file.read_bytes() == before and not list(tmp_path.glob("*.tmp*"))


def test_what_is_refused(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="without it only the set-up line is said (video extra)")
    model, out = ["--model-dir", str(history)], ["--output-file", str(tmp_path / "v.mp4")]
    (tmp_path / "empty").mkdir()
    for words, said in (
        (out, "Give either --model-dir or --input-dir"),
        ([*model, "--output-file", str(tmp_path / "v.gif")], "allowed ends with .mp4"),
        ([*model, "--output-file", str(tmp_path / "no" / "v.mp4")], "is no folder. Make it first"),
        ([*model, *out, "--page", "AMP"], "--page: got 'AMP', allowed is one of SAEHD, SAEHD masked"),
        (["--input-dir", str(tmp_path / "empty"), *out], "holds no preview history"),
        (["--input-dir", str(tmp_path / "none"), *out], "is no folder"),
    ):
        assert make(*words) == 2
        assert said in capsys.readouterr().err
    (history / "other_SAEHD_history" / "SAEHD").mkdir(parents=True)
    (history / "other_SAEHD_data.dat").touch()
    assert make(*model, *out) == 2
    assert "There are mine_SAEHD, other_SAEHD. Say which by --force-model-name" in capsys.readouterr().err
    assert not (tmp_path / "v.mp4").exists()


def test_pages_and_pictures(history: Path) -> None:
    pages = history / "mine_SAEHD_history"
    assert find_page(pages, None, None).name == "SAEHD"
    said = io.StringIO()
    assert find_page(pages, None, ListTerminal(io.StringIO("1\n"), said)).name == "SAEHD masked"
    assert "[1] : SAEHD masked" in said.getvalue()
    assert find_page(pages, None, ListTerminal(io.StringIO("\n"), said)).name == "SAEHD"
    with pytest.raises(OptionError, match="holds no preview history"):
        find_page(history, "SAEHD", None)
    found = pictures(pages / "SAEHD")
    assert [iteration for iteration, _ in found] == list(range(1000, 13000, 1000))
    assert spread(found, 0) == spread(found, 12) == found
    assert [iteration for iteration, _ in spread(found, 4)] == [1000, 4000, 8000, 12000]
    assert spread(found, 1) == found[-1:]


def test_without_pyav(history: Path, tmp_path: Path) -> None:
    """A real process that finds none."""
    code = f"import sys\nsys.modules['av'] = None\nsys.argv[0] = {str(ROOT / 'main.py')!r}\n"
    code += "import importlib.util as util\nfind = util.find_spec\n"
    code += "util.find_spec = lambda name, *rest: None if name == 'av' else find(name, *rest)\n"
    code += "from main import main\nsys.exit(main())"
    words = ["videoed", "timelapse", "--model-dir", str(history), "--output-file", str(tmp_path / "v.mp4")]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "8_preview_history_to_mp4.sh" in done.stderr and "pip install av" in done.stderr
    assert (ROOT / "bat" / "linux" / "8_preview_history_to_mp4.sh").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["wörk space"]
