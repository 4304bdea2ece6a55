"""Reads clips that exist already: a GIF, a folder of pictures, or an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swiftdiff.errors import ConfigError
from swiftdiff.world.drift.error import Frames

if TYPE_CHECKING:
    from PIL import Image

_PICTURES = (".png", ".jpg", ".jpeg")


def read_clips(paths: Sequence[Path]) -> list[Frames]:
    """Return the frames of clips that are to be compared; see `read_clip`.

    Raises:
        ConfigError: One cannot be read, or their pictures differ in size, on which metrics depend.
    """
    clips = [read_clip(path) for path in paths]
    for path, clip in zip(paths, clips, strict=True):
        if clip.shape[1:] != clips[0].shape[1:]:
            raise ConfigError(
                f"{path} has pictures of {_size_of(clip)}, but {paths[0]} of {_size_of(clips[0])}: metrics "
                "depend on the size. A GIF of world generate may be enlarged; its folder never is"
            )
    return clips


def read_clip(path: Path) -> Frames:
    """Return a clip's frames, uint8 [F, H, W, 3].

    Args:
        path: A ``.gif``, a folder whose pictures are its frames in the order of their names, a folder of
            `swiftdiff world generate`, or a ``.npy`` with such an array.

    Raises:
        ConfigError: It is missing, damaged or none of these.
    """
    from PIL import Image

    if not path.exists():
        raise ConfigError(f"{path} cannot be read: there is no such clip")
    try:
        if path.is_dir():
            folder = path / "frames" if (path / "frames").is_dir() else path
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
            if not files:
                raise ConfigError(f"{path} holds no pictures (.png or .jpg) to be frames of a clip")
            frames = []
            for file in files:
                with Image.open(file) as picture:
                    frames.append(np.asarray(picture.convert("RGB")))
        elif path.suffix.lower() == ".gif":
            with Image.open(path) as clip:
                frames = _read_gif(clip)
        elif path.suffix.lower() == ".npy":
            return _check_array(np.load(path, allow_pickle=False), path)
        else:
            raise ConfigError(
                f"{path}: unknown kind of clip; a clip is a .gif, a folder of pictures or a .npy"
            )
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a clip: {error}") from error
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise ConfigError(f"{path} is no clip: its pictures have different sizes")
    return np.stack(frames)


def _read_gif(clip: Image.Image) -> list[Frames]:
    """Return a GIF's frames; one that is shown for longer comes as often, since equal ones are joined."""
    from PIL import ImageSequence

    shown = [
        (np.asarray(each.convert("RGB")), round(each.info.get("duration", 0)))
        for each in ImageSequence.Iterator(clip)
    ]
    shortest = math.gcd(*(time for _, time in shown))
    return [frame for frame, time in shown for _ in range(time // shortest if shortest else 1)]


def _size_of(clip: Frames) -> str:
    return f"{clip.shape[2]}x{clip.shape[1]}"


def _check_array(array: NDArray[Any], path: Path) -> Frames:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise ConfigError(
            f"{path} holds {array.dtype} {list(array.shape)}, but must hold uint8 [frames, height, width, 3]"
        )
    return array
