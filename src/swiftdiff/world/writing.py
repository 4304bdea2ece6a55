"""Owns what a clip's pictures are written as at its end: GIF and MP4."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from swiftdiff.errors import StorageError

# Smaller clips are shown enlarged by a whole factor, so that one pixel stays one square.
_SHOWN_SIDE = 256
FFMPEG = "ffmpeg"


def shown_scale(width: int, height: int) -> int:
    """Return the factor by which GIF and MP4 enlarge a clip of that size."""
    return max(1, _SHOWN_SIDE // min(width, height))


def write_gif(path: Path, frames: Sequence[Path], fps: float) -> None:
    """Write pictures as a GIF that repeats for ever.

    A GIF counts time in hundredths of a second, so single frames are shown up to 5 ms too long or too short;
    the whole is as long as it should be. It is made of one byte a pixel in memory.

    Args:
        path: The file.
        frames: PNG files, at least one.
        fps: Frames a second.

    Raises:
        StorageError: A picture cannot be read or the GIF cannot be written.
    """
    ticks = np.round(np.arange(len(frames) + 1) * 100 / fps).astype(int)
    durations_ms = [int(ms) for ms in np.diff(ticks) * 10]
    partial = path.with_name(path.name + ".part")
    try:
        shown = (_enlarged(frame) for frame in frames)
        first = next(shown)
        first.save(partial, format="GIF", save_all=True, append_images=shown, duration=durations_ms, loop=0)
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_mp4(path: Path, frames: Sequence[Path], fps: float, ffmpeg: str) -> None:
    """Write pictures as MP4 by ffmpeg, with the encoder that it takes by itself.

    Args:
        path: The file.
        frames: PNG files, at least one.
        fps: Frames a second.
        ffmpeg: The program.

    Raises:
        StorageError: ffmpeg cannot be started, says that it failed, or wrote nothing.
    """
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    with Image.open(frames[0]) as first:
        width, height = first.size
    scale = shown_scale(width, height)
    # Most players want 4:2:0 colour, which needs even sides.
    shown = f"scale=iw*{scale}:ih*{scale}:flags=neighbor,pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"]
    command = [ffmpeg, "-y", "-nostdin", "-loglevel", "error", *source, "-vf", shown, str(partial)]
    try:
        _run(command, frames)
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path} with {ffmpeg}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def find_ffmpeg() -> str | None:
    """Return where ffmpeg is, or None if it is not on the path."""
    return shutil.which(FFMPEG)


def _run(command: list[str], frames: Sequence[Path]) -> None:
    """Give ffmpeg the pictures one after the other."""
    with tempfile.TemporaryFile() as complaints:  # no pipe, which could fill while nobody reads it
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints
        )
        try:
            if process.stdin is not None:
                _feed(process.stdin, frames)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            complaints.seek(0)
            lines = complaints.read().decode("utf-8", errors="replace").strip().splitlines()
            raise OSError(lines[-1] if lines else f"it ended with code {code}")


def _feed(pipe: IO[bytes], frames: Sequence[Path]) -> None:
    # A pipe that breaks says less than ffmpeg's own complaint, which its exit code leads to.
    with contextlib.suppress(BrokenPipeError), pipe:
        for frame in frames:
            with Image.open(frame) as image:
                pipe.write(image.convert("RGB").tobytes())


def _enlarged(path: Path) -> Image.Image:
    with Image.open(path) as image:
        scale = shown_scale(*image.size)
        shown = image.convert("RGB")
    return shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)
