"""Reads pairs of picture files that are to be compared, the baseline's and a system's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Image8 = NDArray[np.uint8]


class IncomparableError(Exception):
    """Two pictures cannot be compared; the message says why."""


def read_pair(baseline: Path, other: Path) -> tuple[Image8, Image8]:
    """Return both pictures' pixels, uint8 [H, W, 3].

    Raises:
        IncomparableError: One is not there or cannot be read, or their sizes differ.
    """
    before, after = read_picture_file(baseline), read_picture_file(other)
    if before.shape != after.shape:
        sizes = [f"{array.shape[1]}×{array.shape[0]}" for array in (after, before)]
        raise IncomparableError(f"{other} is {sizes[0]}, the baseline's is {sizes[1]}")
    return before, after


def read_picture_file(path: Path) -> Image8:
    """Return a picture's pixels, uint8 [H, W, 3].

    Raises:
        IncomparableError: It is not there, or cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise IncomparableError(f"{path} is not there") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise IncomparableError(f"{path} cannot be read: {error}") from error
