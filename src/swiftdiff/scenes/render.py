"""Pictures of scenes: signed distance functions, vectorised over a batch, with soft shading.

Distance functions follow Inigo Quilez' formulas (https://iquilezles.org/articles/distfunctions2d/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scene import BACKGROUNDS, COLOURS, Scene, SceneObject

Floats = NDArray[np.floating[Any]]
Image8 = NDArray[np.uint8]


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - np.float32(0.95)


def _box(x: Floats, y: Floats, half_x: float, half_y: float) -> Floats:
    dx, dy = np.abs(x) - np.float32(half_x), np.abs(y) - np.float32(half_y)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _square(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 0.82, 0.82)


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 1.0, 0.34), _box(x, y, 0.34, 1.0))


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - np.float32(0.72)) - np.float32(0.25)


def _polygon(x: Floats, y: Floats, points: Sequence[tuple[float, float]]) -> Floats:
    squared = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        wx, wy = x - np.float32(ax), y - np.float32(ay)
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        crosses = (y >= min(ay, by)) & (y < max(ay, by))
        if ey != 0:
            inside ^= crosses & (wx < wy * ex / ey)
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance)


_TRIANGLE = ((0.0, -1.05), (1.0, 0.75), (-1.0, 0.75))
_STAR = tuple(
    (float(r * np.sin(np.pi * i / 5)), float(-r * np.cos(np.pi * i / 5)) + 0.05)
    for i, r in ((i, 1.1 if i % 2 == 0 else 0.46) for i in range(10))
)


def _triangle(x: Floats, y: Floats) -> Floats:
    return _polygon(x, y, _TRIANGLE)


def _star(x: Floats, y: Floats) -> Floats:
    return _polygon(x, y, _STAR)


#: shape -> signed distance at (x, y) in units of the object's radius; negative inside
SIGNED_DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """A batch of scenes as fields: what every picture, style and control image is made from.

    `distance` [N, 3, S, S] in pixels (inf where a scene has fewer objects), `colour` [N, 3, 3] and
    `background` [N, 3] in 0..1, `radius` [N, 3] in pixels, `side` S.
    """

    distance: Floats
    colour: Floats
    background: Floats
    radius: Floats
    side: int

    def subset(self, chosen: NDArray[np.bool_]) -> Geometry:
        """The chosen scenes of the batch, [N] of booleans."""
        return Geometry(
            self.distance[chosen],
            self.colour[chosen],
            self.background[chosen],
            self.radius[chosen],
            self.side,
        )

    @property
    def coverage(self) -> Floats:
        """How much of each pixel each object covers, [N, 3, S, S] in 0..1."""
        return np.asarray(np.clip(np.float32(0.5) - self.distance, 0, 1))


def geometry(scenes: Sequence[Scene], side: int) -> Geometry:
    """Evaluate the scenes' distance fields at pixel centres of a side x side picture."""
    number = len(scenes)
    distance = np.full((number, 3, side, side), np.inf, np.float32)
    colour = np.zeros((number, 3, 3), np.float32)
    radius = np.ones((number, 3), np.float32)
    background = np.array([BACKGROUNDS[scene.background] for scene in scenes], np.float32) / 255
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    by_shape: dict[str, list[tuple[int, int, SceneObject]]] = {}
    for index, scene in enumerate(scenes):
        for slot, item in enumerate(scene.objects):
            by_shape.setdefault(item.shape, []).append((index, slot, item))
            colour[index, slot] = np.array(COLOURS[item.colour], np.float32) / 255
            radius[index, slot] = item.radius * side
    for shape, uses in by_shape.items():
        where = np.array([(index, slot) for index, slot, _ in uses])
        params = np.array([(item.x, item.y, item.radius) for _, _, item in uses], np.float32)
        scale = params[:, 2, None, None]
        x, y = np.broadcast_arrays(
            (centres[None, None, :] - params[:, 0, None, None]) / scale,
            (centres[None, :, None] - params[:, 1, None, None]) / scale,
        )
        distance[where[:, 0], where[:, 1]] = SIGNED_DISTANCES[shape](x, y) * scale * side
    return Geometry(distance, colour, background, radius, side)


def to_uint8(picture: Floats) -> Image8:
    """Floats in 0..1 to bytes, rounded."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def blend(under: Floats, over: Floats, amount: Floats) -> Floats:
    """`over` on `under` where `amount` is 1; [N, S, S, 3], [N, S, S, 3] or broadcastable, [N, S, S]."""
    return under + (over - under) * amount[..., None]


def shade(fields: Geometry) -> Floats:
    """The plain picture, [N, S, S, 3] in 0..1: graded background, soft shadows, softly lit objects."""
    side = fields.side
    ramp = np.linspace(1.05, 0.93, side, dtype=np.float32)[None, :, None, None]
    picture = np.broadcast_to(
        fields.background[:, None, None, :] * ramp, (len(fields.background), side, side, 3)
    )
    shift = max(1, round(side / 48))
    light = np.linspace(0.5, -0.5, side, dtype=np.float32)
    for slot in range(3):
        distance = fields.distance[:, slot]
        if not np.isfinite(distance).any():
            continue
        shadow = np.clip(0.5 - np.roll(distance, (shift, shift), (1, 2)) / (0.04 * side), 0, 1) * np.float32(
            0.22
        )
        picture = blend(picture, picture * np.float32(0.25), shadow)
        reach = fields.radius[:, slot, None, None]
        depth = np.clip(-distance / reach, 0, 0.5)  # 0 at the rim, growing inwards
        lit = 0.9 + 0.28 * depth + 0.22 * (light[None, :, None] + light[None, None, :]) * 0.5
        body = fields.colour[:, slot, None, None, :] * lit[..., None].astype(np.float32)
        picture = blend(picture, body, fields.coverage[:, slot])
    return picture.astype(np.float32)


def render(scenes: Sequence[Scene], side: int = 128) -> Image8:
    """Render scenes as uint8 pictures, [N, side, side, 3]."""
    return to_uint8(shade(geometry(scenes, side)))
