"""Names the shape of a mask: every shape of the world is laid over it, and the best overlap wins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swiftdiff.scenes import SHAPES
from swiftdiff.scenes.render import SIGNED_DISTANCES

Floats = NDArray[np.float32]

_REACH: Final = 1.3  # templates span this many radii to each side
_CELLS: Final = 44
#: a mask that overlaps every template less than this has no shape's name
MIN_OVERLAP: Final = 0.7


@dataclass(frozen=True, slots=True)
class ShapeFit:
    """The best template: shape, centre and radius in pixels, and overlap (intersection over union)."""

    shape: str
    x: float
    y: float
    radius: float
    overlap: float


@dataclass(frozen=True, slots=True)
class _Template:
    """A shape of radius 1 on the grid: coverage of each cell, area and centre of gravity."""

    coverage: Floats
    area: float
    x: float
    y: float


@cache
def _templates() -> dict[str, _Template]:
    fine = 8
    axis = ((np.arange(_CELLS * fine) + 0.5) / (_CELLS * fine) * 2 - 1) * _REACH
    x, y = (grid.astype(np.float32) for grid in np.meshgrid(axis, axis))
    cell_area = (2 * _REACH / (_CELLS * fine)) ** 2
    found = {}
    for shape in SHAPES:
        inside = SIGNED_DISTANCES[shape](x, y) < 0
        coverage = inside.reshape(_CELLS, fine, _CELLS, fine).mean((1, 3)).astype(np.float32)
        found[shape] = _Template(
            coverage, float(inside.sum() * cell_area), float(x[inside].mean()), float(y[inside].mean())
        )
    return found


def fit_shapes(mask: Floats) -> list[ShapeFit]:
    """Fit every shape to a soft mask [H, W] in 0..1, best first.

    Area and centre of gravity give each template's place; the likely ones are then moved and scaled a little.
    """
    crisp = np.clip((mask - 0.5) * 3 + 0.5, 0, 1).astype(np.float32)
    area = float(crisp.sum())
    rows, columns = np.arange(mask.shape[0]) + 0.5, np.arange(mask.shape[1]) + 0.5
    x = float((crisp.sum(0) * columns).sum() / max(area, 1e-6))
    y = float((crisp.sum(1) * rows).sum() / max(area, 1e-6))
    rough = []
    for shape, template in _templates().items():
        radius = (max(area, 1e-6) / template.area) ** 0.5
        place = np.array([[x - radius * template.x, y - radius * template.y, radius]])
        rough.append(_best(crisp, area, shape, place))
    top = max(fit.overlap for fit in rough)
    fits = [_refine(crisp, area, fit) if fit.overlap > top - 0.15 else fit for fit in rough]
    return sorted(fits, key=lambda fit: -fit.overlap)


def _refine(mask: Floats, area: float, fit: ShapeFit) -> ShapeFit:
    for step in (0.06, 0.03):
        at = np.array([fit.x, fit.y, fit.radius])
        scales = [at * (1, 1, 1 + step * k) for k in (-2, -1, 0, 1, 2)]
        fit = _best(mask, area, fit.shape, np.array(scales))
        at, move = np.array([fit.x, fit.y, fit.radius]), step * fit.radius
        moves = [at + np.array([i, j, 0]) * move for i in (-1, 0, 1) for j in (-1, 0, 1)]
        fit = _best(mask, area, fit.shape, np.array(moves))
    return fit


def _best(mask: Floats, area: float, shape: str, places: NDArray[np.float64]) -> ShapeFit:
    """The best of several places [K, 3] (x, y, radius) of one template."""
    template = _templates()[shape]
    axis = ((np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * _REACH
    x, y, radius = (places[:, index, None, None] for index in range(3))
    # Pixel centres lie at half-integers, array indices at integers.
    columns = x + radius * axis[None, None, :] - 0.5
    rows = y + radius * axis[None, :, None] - 0.5
    both = np.broadcast_arrays(rows, columns)
    sampled = ndimage.map_coordinates(mask, both, order=1, mode="constant")
    cell_area = (2 * _REACH / _CELLS * places[:, 2]) ** 2
    shared = np.minimum(sampled, template.coverage).sum((1, 2)) * cell_area
    overlap = shared / (area + template.area * places[:, 2] ** 2 - shared)
    best = int(overlap.argmax())
    return ShapeFit(
        shape,
        x=float(places[best, 0]),
        y=float(places[best, 1]),
        radius=float(places[best, 2]),
        overlap=float(overlap[best]),
    )
