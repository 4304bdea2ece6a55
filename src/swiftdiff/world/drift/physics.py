"""Owns how well a chunk of a bounce clip keeps its physics, measured by its pixels alone.

Unlike the judge's marks these need no true course: they say what a ball does, not where it should be.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from swiftdiff.world.bounce.measure import MIN_PIXELS, look_at
from swiftdiff.world.bounce.scene import COLOURS, CONTACT, RADIUS, SIDE, SPEEDS
from swiftdiff.world.drift.error import Metric

_Chunk = NDArray[np.float32]
_Floats = NDArray[np.float64]

_APART = CONTACT + 2 * SPEEDS[1]  # balls that are nearer to each other may meet in the next frame
_NO_WALL = RADIUS + SPEEDS[1]  # a centre that is further from a wall is not turned back by the next frame


def flight_residual(chunk: _Chunk) -> float:
    """Return the mean change of a ball's velocity from frame to frame away from walls, in pixels.

    It is 0 of a ball that keeps speed and direction, but for what measuring adds, and where no ball flies.

    Args:
        chunk: float32 [F, 32, 32, 3] from 0 to 1.
    """
    centres = _find_centres(chunk)
    bend = np.abs(np.diff(centres, n=2, axis=0))
    inside = (centres > _NO_WALL) & (centres < SIDE - _NO_WALL)
    is_free = inside[:-2] & inside[1:-1] & inside[2:]  # false where a centre is not known
    return float(bend[is_free].mean()) if is_free.any() else 0.0


def speed(chunk: _Chunk) -> float:
    """Return the mean way of a ball from frame to frame, in pixels; 0 where none can be followed.

    Ways near walls count only where there are no others: a ball that is turned back gets less far.

    Args:
        chunk: float32 [F, 32, 32, 3] from 0 to 1.
    """
    centres = _find_centres(chunk)
    inside: NDArray[np.bool_] = np.all((centres > _NO_WALL) & (centres < SIDE - _NO_WALL), axis=-1)
    way = np.linalg.norm(np.diff(centres, axis=0), axis=-1)
    is_free = inside[:-1] & inside[1:]
    counted = way[is_free] if is_free.any() else way[~np.isnan(way)]
    return float(counted.mean()) if counted.size else 0.0


def balls(chunk: _Chunk) -> float:
    """Return the mean number of colours that are seen in a frame.

    Args:
        chunk: float32 [F, 32, 32, 3] from 0 to 1.
    """
    sightings = look_at(_to_bytes(chunk))
    return float((sightings.pixels >= MIN_PIXELS).sum(-1).mean())


RESIDUALS: Final[dict[str, Metric]] = {
    "residual (physics)": flight_residual,
    "speed (physics)": speed,
    "balls (physics)": balls,
}


def _find_centres(chunk: _Chunk) -> _Floats:
    """Return the centre of mass of each ball in each frame, [F, 6, 2], by colour; NaN near another one."""
    sightings = look_at(_to_bytes(chunk))
    pixels = np.arange(SIDE) + 0.5
    centres = np.full((len(chunk), len(COLOURS), 2), np.nan)
    for frame, colour in zip(*np.nonzero(sightings.pixels >= MIN_PIXELS), strict=True):
        mass = np.where(sightings.colour[frame] == colour, sightings.opacity[frame], 0)
        centres[frame, colour] = (mass.sum(0) @ pixels, mass.sum(1) @ pixels) / mass.sum()
    distances = np.linalg.norm(centres[:, :, None] - centres[:, None], axis=-1)
    distances[:, range(len(COLOURS)), range(len(COLOURS))] = np.inf
    centres[(distances < _APART).any(-1)] = np.nan
    return centres


def _to_bytes(chunk: _Chunk) -> NDArray[np.uint8]:
    return (chunk * 255).round().astype(np.uint8)
