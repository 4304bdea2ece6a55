"""Control images for the three shipped ControlNets, made from a scene or from any picture.

All are uint8 RGB of the picture's size: `edges` white lines on black, `depth` near is bright, `layout`
flat colour regions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import numpy as np
from scipy import ndimage

from .render import Floats, Image8, geometry, render, to_uint8
from .scene import BACKGROUNDS, COLOURS, Scene

#: gradient (per pixel, colours in 0..1) above which a pixel can be an edge; shading and shadows stay below
_EDGE_THRESHOLD = 0.045


def edges_from_image(image: Image8) -> Image8:
    """Thin colour edges of a picture [H, W, 3]: Gaussian gradient, non-maximum suppression (Canny, 1986)."""
    picture = image.astype(np.float32) / 255
    dy = ndimage.gaussian_filter1d(picture, 1.0, axis=0, order=1)
    dy = ndimage.gaussian_filter1d(dy, 1.0, axis=1)
    dx = ndimage.gaussian_filter1d(picture, 1.0, axis=1, order=1)
    dx = ndimage.gaussian_filter1d(dx, 1.0, axis=0)
    strongest = np.argmax(dx**2 + dy**2, axis=2)[..., None]
    gx = np.take_along_axis(dx, strongest, 2)[..., 0]
    gy = np.take_along_axis(dy, strongest, 2)[..., 0]
    strength = np.hypot(gx, gy)
    unit = np.maximum(strength, 1e-6)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    ahead = ndimage.map_coordinates(
        strength, [rows + gy / unit, columns + gx / unit], order=1, mode="nearest"
    )
    behind = ndimage.map_coordinates(
        strength, [rows - gy / unit, columns - gx / unit], order=1, mode="nearest"
    )
    thin = (strength >= ahead) & (strength > behind) & (strength > _EDGE_THRESHOLD)
    return np.repeat((thin * np.uint8(255))[..., None], 3, -1)


def edges_from_scene(scene: Scene, side: int = 128) -> Image8:
    """Edges of the scene's plain picture, [side, side, 3]."""
    return edges_from_image(render([scene], side)[0])


def _depth(distance: Floats, reach: Floats) -> Image8:
    """Domes on a ground that nears towards the bottom; `distance` [K, H, W] and `reach` [K] in pixels."""
    height, width = distance.shape[-2:]
    ground = np.broadcast_to(np.linspace(0.08, 0.30, height, dtype=np.float32)[:, None], (height, width))
    domes = 0.55 + 0.42 * np.sqrt(np.clip(-distance / np.maximum(reach, 1)[:, None, None], 0, 1))
    near = np.where(distance < 0, domes, 0).max(0, initial=0)
    return to_uint8(np.repeat(np.maximum(near, ground)[..., None], 3, -1).astype(np.float32))


def depth_from_scene(scene: Scene, side: int = 128) -> Image8:
    """Depth of the scene, [side, side, 3]: each object a dome over the ground."""
    fields = geometry([scene], side)
    return _depth(fields.distance[0], fields.radius[0])


def layout_from_scene(scene: Scene, side: int = 128) -> Image8:
    """The scene's flat colour regions, [side, side, 3]."""
    flat = np.full((side, side, 3), BACKGROUNDS[scene.background], np.uint8)
    for item, distance in zip(scene.objects, geometry([scene], side).distance[0], strict=False):
        flat[distance < 0] = COLOURS[item.colour]
    return flat


_PALETTE = np.array([*COLOURS.values(), *BACKGROUNDS.values()], np.float32)


def nearest_palette_index(image: Image8) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Index of each pixel's nearest name, [H, W]: first the COLOURS, then the BACKGROUNDS.

    Shading scales a colour, so a pixel is compared with each colour at its best brightness.
    """
    pixels = image.astype(np.float32)[:, :, None, :]
    difference = pixels - _PALETTE
    best_gain = np.clip((pixels * _PALETTE).sum(-1) / (_PALETTE**2).sum(-1), 0.75, 1.2)[..., None]
    difference = pixels - best_gain * _PALETTE
    return np.asarray(np.argmin((difference**2).sum(-1), axis=-1))


def layout_from_image(image: Image8) -> Image8:
    """Flat regions of a picture [H, W, 3]: nearest palette colour, speckles removed by a median."""
    index = ndimage.median_filter(nearest_palette_index(image), size=5)
    return np.asarray(_PALETTE[index].astype(np.uint8))


def depth_from_image(image: Image8) -> Image8:
    """Depth guessed from a picture [H, W, 3]: connected colour regions become domes.

    Exact for the world's own pictures up to a pixel; for other pictures a plausible steering image.
    """
    index = ndimage.median_filter(nearest_palette_index(image), size=3)
    distances: list[Floats] = []
    reaches: list[float] = []
    for colour in range(len(COLOURS)):
        labels, number = ndimage.label(index == colour)
        for region in range(1, number + 1):
            inside = labels == region
            if inside.sum() < 0.004 * inside.size:
                continue
            rows, columns = np.nonzero(inside)
            distances.append(-ndimage.distance_transform_edt(inside).astype(np.float32))
            reaches.append(float(max(np.ptp(rows), np.ptp(columns))) / 2)
    if not distances:
        distances, reaches = [np.full(image.shape[:2], np.inf, np.float32)], [1.0]
    return _depth(np.stack(distances), np.array(reaches, np.float32))


_FROM_SCENE: Final[MappingProxyType[str, Callable[[Scene, int], Image8]]] = MappingProxyType(
    {"edges": edges_from_scene, "depth": depth_from_scene, "layout": layout_from_scene}
)
_FROM_IMAGE: Final[MappingProxyType[str, Callable[[Image8], Image8]]] = MappingProxyType(
    {"edges": edges_from_image, "depth": depth_from_image, "layout": layout_from_image}
)
CONTROL_KINDS: Final = tuple(_FROM_SCENE)


def control_from_scene(kind: str, scene: Scene, side: int = 128) -> Image8:
    """The control image of one of CONTROL_KINDS for a scene, uint8 [side, side, 3]."""
    return _FROM_SCENE[kind](scene, side)


def control_from_image(kind: str, image: Image8) -> Image8:
    """The control image of one of CONTROL_KINDS for a picture, uint8 [H, W, 3]."""
    return _FROM_IMAGE[kind](image)
