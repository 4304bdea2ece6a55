"""Measures balls in pictures from their pixels alone: which colours, in how many pieces, and where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .scene import BACKGROUND, COLOURS, RADIUS, SIDE

Pictures = NDArray[np.uint8]
Float32 = NDArray[np.float32]

#: pixels of a colour from which on it counts as seen; a whole ball has 38
MIN_PIXELS: Final = 6
_MOST_DISTANCE = 80.0  # of a pixel from the mix of ground and colour that it is taken for
_GRID_STEP = 0.5
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Sightings:
    """What pictures show.

    Attributes:
        opacity: How far each pixel is from the ground towards its colour, 0 to 1, [N, 32, 32].
        colour: Which colour that is, [N, 32, 32].
        pixels: Of each colour, [N, 6].
        pieces: Of at least MIN_PIXELS, of each colour, [N, 6].
    """

    opacity: Float32
    colour: NDArray[np.int64]
    pixels: NDArray[np.int64]
    pieces: NDArray[np.int64]


def look_at(pictures: Pictures) -> Sightings:
    """Take each pixel for the mix of the ground and one colour that it is nearest to.

    Args:
        pictures: uint8 [N, 32, 32, 3].
    """
    ground = np.array(BACKGROUND, np.float32)
    towards = np.array(list(COLOURS.values()), np.float32) - ground  # [6, 3]
    found = [_nearest_mix(part.astype(np.float32) - ground, towards) for part in _parts(pictures)]
    opacity, colour = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    is_ball = (opacity >= 0.5)[..., None] & (colour[..., None] == np.arange(len(COLOURS)))
    pixels = is_ball.sum((1, 2))
    pieces = np.zeros_like(pixels)
    for picture, kind in zip(*np.nonzero(pixels >= MIN_PIXELS), strict=True):
        labels, _ = ndimage.label(is_ball[picture, :, :, kind])
        pieces[picture, kind] = (np.bincount(labels.ravel())[1:] >= MIN_PIXELS).sum()
    return Sightings(opacity, colour, pixels, pieces)


def locate(sightings: Sightings, picture: NDArray[np.int64], colour: NDArray[np.int64]) -> Float32:
    """Return the centre of the disc that fits a colour in a picture best, [M, 2], x then y.

    Pixels of other colours say nothing, as another ball touches this one there.

    Args:
        sightings: Of the pictures.
        picture: Index of each picture, [M].
        colour: The colour to be found in it, [M].
    """
    discs, size = _discs()
    centres = []
    for first in range(0, len(picture), _AT_ONCE):
        rows, wanted = picture[first : first + _AT_ONCE], colour[first : first + _AT_ONCE, None, None]
        own, opacity = sightings.colour[rows] == wanted, sightings.opacity[rows]
        known = (own | (opacity < 0.3)).astype(np.float32).reshape(len(rows), -1)
        seen = np.where(own, opacity, 0).astype(np.float32).reshape(len(rows), -1)
        misfit = known @ discs.T**2 - 2 * (known * seen) @ discs.T
        centres.append(_lowest(misfit.reshape(-1, size, size)))
    return np.concatenate(centres) if centres else np.zeros((0, 2), np.float32)


def _parts(pictures: Pictures) -> list[Pictures]:
    return [pictures[first : first + _AT_ONCE] for first in range(0, len(pictures), _AT_ONCE)]


def _nearest_mix(away: Float32, towards: Float32) -> tuple[Float32, NDArray[np.int64]]:
    length = np.square(towards).sum(1)
    along = away @ towards.T
    opacity = np.clip(along / length, 0, 1)
    error = np.square(away).sum(-1, keepdims=True) - 2 * opacity * along + opacity**2 * length
    colour = error.argmin(-1)
    best = np.take_along_axis(opacity, colour[..., None], -1)[..., 0]
    off = np.take_along_axis(error, colour[..., None], -1)[..., 0]
    return np.where(off <= _MOST_DISTANCE**2, best, 0).astype(np.float32), colour


@cache
def _discs() -> tuple[Float32, int]:
    """Return a disc drawn at every centre of a grid [places, pixels], rows of y then x, and its side."""
    places = np.arange(RADIUS - 1, SIDE - RADIUS + 1.01, _GRID_STEP, dtype=np.float32)
    pixels = np.arange(SIDE, dtype=np.float32) + 0.5
    away = np.square(places[:, None] - pixels)
    distance = np.sqrt(away[:, None, :, None] + away[None, :, None, :])  # [y, x, row, column]
    discs: Float32 = np.clip(RADIUS + 0.5 - distance, 0, 1).reshape(len(places) ** 2, -1)
    return discs, len(places)


def _lowest(misfit: Float32) -> Float32:
    """Return where [M, side, side] is lowest, refined by a parabola through the neighbours on each axis."""
    size = misfit.shape[1]
    rows = np.arange(len(misfit))
    y, x = np.divmod(misfit.reshape(len(misfit), -1).argmin(1), size)
    x, y = np.clip(x, 1, size - 2), np.clip(y, 1, size - 2)
    middle = misfit[rows, y, x]
    fine = []
    for before, after in (
        (misfit[rows, y, x - 1], misfit[rows, y, x + 1]),
        (misfit[rows, y - 1, x], misfit[rows, y + 1, x]),
    ):
        bend = np.maximum(before - 2 * middle + after, 1e-6)
        fine.append(np.clip((before - after) / (2 * bend), -1, 1))
    grid = np.stack([x, y], -1) + np.stack(fine, -1)
    centres: Float32 = (RADIUS - 1 + _GRID_STEP * grid).astype(np.float32)
    return centres
