"""Reads what a picture in a known style shows, by drawing it: the scene whose rendering comes nearest.

A style may have no colours and no flat areas, so segmentation fails. Instead every object is moved until the
style's own rendering is nearest to the picture, and then its shape, size and colour compete with all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swiftdiff.scenes import COLOURS, SHAPES, SIZES, STYLES, Scene, SceneObject, caption, parse_caption
from swiftdiff.scenes.render import geometry

from .attributes import size_name

Floats = NDArray[np.float32]
Image8 = NDArray[np.uint8]

#: styles in which an object's colour is to be seen
COLOURED_STYLES: Final = ("neon", "watercolour", "pixel", "stripes", "night")
_COARSE_SIDE: Final = 32
_FINE_SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class StyledObject:
    """What of one named object a styled picture shows; `colour_right` is None in styles without colours.

    `is_there`: drawing the object at the caption's place comes nearer to the picture than leaving it out.
    """

    is_there: bool
    shape_right: bool
    size_right: bool
    colour_right: bool | None


def judge_styled(image: Image8, scene: Scene, style: str) -> tuple[StyledObject, ...]:
    """Judge a picture in one of STYLES, uint8 [S, S, 3] with S a multiple of 64, against a scene's names."""
    named = parse_caption(caption(scene))  # the names and their nominal places: what a prompt says
    assert named is not None
    fit = named
    coarse, fine = _Target(image, style, _COARSE_SIDE), _Target(image, style, _FINE_SIDE)
    for _ in range(2):
        for index in range(len(fit.objects)):
            fit = coarse.best(_moved(fit, index, reach=3, step=0.05))
            fit = coarse.best(_reshaped(fit, index))
    for reach, step in ((2, 0.025), (1, 0.01)):
        for index in range(len(fit.objects)):
            fit = fine.best(_moved(fit, index, reach, step))
            fit = fine.best(_resized(fit, index))
            fit = fine.best(_reshaped(fit, index))
    return tuple(_judge_object(fine, fit, index, item, style) for index, item in enumerate(named.objects))


class _Target:
    """The picture at a working size, and how far renderings of scenes are from it."""

    def __init__(self, image: Image8, style: str, side: int) -> None:
        factor = image.shape[0] // side
        small = image.reshape(side, factor, side, factor, 3).mean((1, 3), dtype=np.float32) / np.float32(255)
        self._picture = _softened(small[None])
        self._style = style
        self._side = side

    def errors(self, scenes: Sequence[Scene]) -> Floats:
        """Mean squared difference of each scene's rendering, [N]."""
        fields = geometry(scenes, self._side)
        if self._style == "watercolour":  # there the radius only seeds the blotches, which no caption names
            fields = replace(fields, radius=np.full_like(fields.radius, 1.0))
        drawn = _softened(np.clip(STYLES[self._style](fields), 0, 1).astype(np.float32))
        return np.asarray(((drawn - self._picture) ** 2).mean((1, 2, 3)))

    def best(self, scenes: Sequence[Scene]) -> Scene:
        """The scene that comes nearest."""
        return scenes[int(self.errors(scenes).argmin())]


def _softened(pictures: Floats) -> Floats:
    return np.asarray(ndimage.gaussian_filter(pictures, (0, 0.7, 0.7, 0)), np.float32)


def _with(scene: Scene, index: int, item: SceneObject) -> Scene:
    return replace(scene, objects=(*scene.objects[:index], item, *scene.objects[index + 1 :]))


def _moved(scene: Scene, index: int, reach: int, step: float) -> list[Scene]:
    item = scene.objects[index]
    steps = [step * k for k in range(-reach, reach + 1)]
    return [_with(scene, index, replace(item, x=item.x + dx, y=item.y + dy)) for dx in steps for dy in steps]


def _resized(scene: Scene, index: int) -> list[Scene]:
    item = scene.objects[index]
    radii = [radius for low, high in SIZES.values() for radius in (low, (low + high) / 2, high)]
    nearby = [radius for radius in radii if abs(radius - item.radius) < 0.035]
    return [_with(scene, index, replace(item, radius=radius)) for radius in (item.radius, *nearby)]


def _reshaped(scene: Scene, index: int) -> list[Scene]:
    item = scene.objects[index]
    return [
        _with(scene, index, replace(item, shape=shape, radius=radius))
        for shape in SHAPES
        for radius in (item.radius, *(sum(bounds) / 2 for bounds in SIZES.values()))
    ]


def _judge_object(target: _Target, fit: Scene, index: int, named: SceneObject, style: str) -> StyledObject:
    # Another shape may fit best a little aside of where the last one did.
    errors = target.errors(rivals := _reshaped(fit, index))
    close = [rivals[k] for k in np.argsort(errors)[:6]]
    found = target.best([trial for rival in close for trial in _moved(rival, index, 1, 0.015)])
    without = replace(found, objects=(*found.objects[:index], *found.objects[index + 1 :]))
    seen = found.objects[index]
    if target.best([without, found]) is without:
        return StyledObject(False, False, False, False if style in COLOURED_STYLES else None)
    colour_right = None
    if style in COLOURED_STYLES:
        painted = [_with(found, index, replace(seen, colour=name)) for name in COLOURS]
        colour_right = target.best(painted).objects[index].colour == named.colour
    return StyledObject(True, seen.shape == named.shape, size_name(seen.radius) == named.size, colour_right)
