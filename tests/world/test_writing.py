from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from swiftdiff.errors import StorageError
from swiftdiff.files import write_png
from swiftdiff.world.writing import find_ffmpeg, shown_scale, write_gif, write_mp4


def picture(number: int, height: int = 32, width: int = 32) -> np.ndarray:
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[4:8, number : number + 4] = (250, 40, 10)
    return frame


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:06d}.png" for number in range(7)]
    for number, path in enumerate(paths):
        write_png(path, Image.fromarray(picture(number)))
    return paths


def script(folder: Path, text: str) -> str:
    """A program that is called like ffmpeg."""
    path = folder / "ffmpeg"
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_png_holds_the_pixels_and_no_part_of_it_is_left(frames: list[Path]) -> None:
    with Image.open(frames[3]) as image:
        assert np.array_equal(np.asarray(image), picture(3))
    assert not list(frames[3].parent.glob("*.part"))


def test_small_clips_are_shown_enlarged_and_large_ones_as_they_are() -> None:
    assert [shown_scale(32, 32), shown_scale(100, 90), shown_scale(832, 480)] == [8, 2, 1]


def test_a_gif_shows_every_frame_for_its_time_and_repeats(tmp_path: Path, frames: list[Path]) -> None:
    path = tmp_path / "clip.gif"
    write_gif(path, frames, fps=12)
    with Image.open(path) as gif:
        shown = [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
        assert gif.size == (256, 256)
    assert len(shown) == 7
    assert sum(duration for _, duration in shown) == 580  # 7 / 12 s, in hundredths
    assert {duration for _, duration in shown} == {80, 90}
    for number, (image, _) in enumerate(shown):
        assert np.array_equal(np.asarray(image)[4::8, 4::8], picture(number))


def test_a_clip_of_one_frame_is_a_gif_too(tmp_path: Path, frames: list[Path]) -> None:
    write_gif(tmp_path / "clip.gif", frames[:1], fps=12)
    with Image.open(tmp_path / "clip.gif") as gif:
        assert gif.size == (256, 256)


def test_a_gif_that_cannot_be_written_leaves_nothing(tmp_path: Path, frames: list[Path]) -> None:
    (tmp_path / "clip.gif").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*clip\.gif"):
        write_gif(tmp_path / "clip.gif", frames, fps=12)
    assert not list(tmp_path.glob("*.part"))


def test_ffmpeg_gets_every_pixel_in_order(tmp_path: Path, frames: list[Path]) -> None:
    ffmpeg = script(tmp_path, "open(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())")
    write_mp4(tmp_path / "clip.mp4", frames, fps=12, ffmpeg=ffmpeg)
    expected = b"".join(picture(number).tobytes() for number in range(7))
    assert (tmp_path / "clip.mp4").read_bytes() == expected
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("sys.stdin.buffer.read(); sys.exit('Unknown encoder')", "Unknown encoder"),
        ("sys.exit(3)", "it ended with code 3"),  # without reading anything: the pipe breaks
    ],
)
def test_what_ffmpeg_says_is_in_the_error(
    tmp_path: Path, frames: list[Path], program: str, complaint: str
) -> None:
    with pytest.raises(StorageError, match=complaint):
        write_mp4(tmp_path / "clip.mp4", frames * 200, fps=12, ffmpeg=script(tmp_path, program))
    assert not list(tmp_path.glob("clip*"))


def test_an_ffmpeg_that_cannot_be_started_is_an_error(tmp_path: Path, frames: list[Path]) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_mp4(tmp_path / "clip.mp4", frames, fps=12, ffmpeg=str(tmp_path / "nowhere"))


@pytest.mark.skipif(find_ffmpeg() is None, reason="ffmpeg is not installed")
def test_the_real_ffmpeg_writes_an_mp4(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        write_png(
            path, Image.fromarray(picture(number, height=33, width=35))
        )  # odd sides, which 4:2:0 does not have
    ffmpeg = find_ffmpeg()
    assert ffmpeg is not None
    write_mp4(tmp_path / "clip.mp4", paths, fps=12, ffmpeg=ffmpeg)
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"
