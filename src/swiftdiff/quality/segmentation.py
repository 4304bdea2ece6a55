"""Finds the coloured objects of a picture by their pixels: background, then soft masks of one colour each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from swiftdiff.scenes import BACKGROUNDS, COLOURS

Floats = NDArray[np.float32]
Image8 = NDArray[np.uint8]

_COLOUR_NAMES: Final = tuple(COLOURS)
_COLOUR_VALUES: Final = np.array(list(COLOURS.values()), np.float32)
_GROUND_NAMES: Final = tuple(BACKGROUNDS)
_GROUND_VALUES: Final = np.array(list(BACKGROUNDS.values()), np.float32)

#: distances between colours are Euclidean in RGB, 0..255
_MAX_GROUND_DISTANCE: Final = 40.0  # a background further than this from every name has no name
_MAX_COLOUR_DISTANCE: Final = 60.0  # likewise an object's colour, after its brightness is taken out
_OBJECT_DISTANCE: Final = 36.0  # a pixel this far from the background in any light belongs to an object
_SHADOW: Final = 0.2  # a soft shadow takes at most this share of the background's light
_BLEND_DISTANCE: Final = 40.0  # a pixel this near to a mixture of an object and background may be its rim
_MIN_AREA: Final = 0.0043  # of the picture; the smallest star that the world draws has 0.010

_NEIGHBOURS: Final = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True)
class Region:
    """One object's pixels: the colour's name (None if none fits) and a soft mask [H, W] in 0..1."""

    colour: str | None
    mask: Floats

    @property
    def area(self) -> float:
        """Pixels covered."""
        return float(self.mask.sum())


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A picture taken apart: the background's name (None if none fits) and the objects, largest first."""

    background: str | None
    regions: tuple[Region, ...]


def segment(image: Image8) -> Segmentation:
    """Take a picture [H, W, 3] apart into its background and regions of one colour.

    Pixels are explained as a mixture of background, its shadow and one object colour, so that soft edges,
    shading and shadows do not move an outline. Specks below 0.43 % of the picture are no objects.
    """
    picture = image.astype(np.float32)
    name, ground = _background(picture)
    seeds = _seeds(picture, ground)
    # A blend of colour and background can look like another colour, but is nearer to the background:
    # the colours that are furthest from it claim their rims first.
    seeds.sort(key=lambda seed: -float(np.linalg.norm(seed.value - ground.mean((0, 1)))))
    free = np.ones(picture.shape[:2], bool)
    regions = []
    for index, seed in enumerate(seeds):
        others = np.zeros_like(free)
        for other in seeds[:index] + seeds[index + 1 :]:
            others |= other.pixels
        regions += _grow(picture, ground, seed, free, others)
    return Segmentation(name, tuple(sorted(regions, key=lambda region: -region.area)))


@dataclass(frozen=True, slots=True)
class _Seed:
    """Pixels [H, W] that are surely of one colour, and their median colour."""

    pixels: NDArray[np.bool_]
    value: Floats


def _seeds(picture: Floats, ground: Floats) -> list[_Seed]:
    """The insides of objects, one seed a palette colour."""
    inside = ndimage.binary_erosion(_object_distance(picture, ground) > _OBJECT_DISTANCE)
    nearest = _brightness_free_distance(picture).argmin(-1)
    found = []
    for index in range(len(_COLOUR_NAMES)):
        pixels = inside & (nearest == index)
        parts, number = ndimage.label(pixels, _NEIGHBOURS)
        if not number:
            continue
        sizes = ndimage.sum_labels(pixels, parts, np.arange(1, number + 1))
        pixels = np.isin(parts, 1 + np.flatnonzero(sizes >= _MIN_AREA / 4 * pixels.size))
        if pixels.any():
            found.append(_Seed(pixels, np.median(picture[pixels], axis=0)))
    return found


def _grow(
    picture: Floats, ground: Floats, seed: _Seed, free: NDArray[np.bool_], others: NDArray[np.bool_]
) -> list[Region]:
    """The seed's regions with their soft rims; what they take is struck off `free`."""
    reach = max(2, round(min(free.shape) / 32))
    near = ndimage.binary_dilation(seed.pixels, iterations=reach) & free
    alpha, rest = _coverage(picture, ground, seed.value)
    near &= seed.pixels | ~others | (rest < _BLEND_DISTANCE)
    alpha = alpha * near
    parts, number = ndimage.label(alpha > 0.5, _NEIGHBOURS)
    regions = []
    for part in range(1, number + 1):
        body = parts == part
        if not (body & seed.pixels).any():
            continue
        rim = ndimage.binary_dilation(body, _NEIGHBOURS) & ((parts == 0) | body)
        region = Region(_name_of(picture[body & seed.pixels]), np.where(rim, alpha, 0).astype(np.float32))
        free &= ~ndimage.binary_dilation(body, _NEIGHBOURS, iterations=2) | (
            others & (rest >= _BLEND_DISTANCE)
        )
        if region.area >= _MIN_AREA * free.size:
            regions.append(region)
    return regions


def _background(picture: Floats) -> tuple[str | None, Floats]:
    """The background's name and its colour in every row, [H, 1, 3]."""
    height, width = picture.shape[:2]
    ramp = np.linspace(1.05, 0.93, height, dtype=np.float32)[:, None, None]  # as the world shades it
    flat = picture / ramp
    edge = max(2, round(0.05 * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[edge:-edge, edge:-edge] = False
    colour = np.median(flat[frame], axis=0)
    distances = np.linalg.norm(_GROUND_VALUES - colour, axis=1)
    nearest = int(distances.argmin())
    name = _GROUND_NAMES[nearest] if distances[nearest] <= _MAX_GROUND_DISTANCE else None
    rows, columns = np.nonzero(np.linalg.norm(flat - colour, axis=2) < 24)
    if len(rows) < 0.2 * height * width:
        return name, (colour * ramp).astype(np.float32)
    # A generated picture's shading may differ a little: fit it.
    terms = np.stack([np.ones(height), np.linspace(-1, 1, height)], 1)
    fitted = np.linalg.lstsq(terms[rows], picture[rows, columns], rcond=None)[0]
    return name, (terms @ fitted).astype(np.float32)[:, None, :]


def _object_distance(picture: Floats, ground: Floats) -> Floats:
    """How far each pixel is from the background in any light between a full shadow and none, [H, W]."""
    gain = (picture * ground).sum(-1) / np.maximum((ground**2).sum(-1), 1)
    lit = np.clip(gain, 1 - _SHADOW, 1.06)[..., None] * ground
    return np.asarray(np.linalg.norm(picture - lit, axis=-1), np.float32)


def _brightness_free_distance(colours: Floats) -> Floats:
    """Distance of colours [..., 3] to each named colour in its best light, [..., 8]."""
    pixels = colours[..., None, :]
    gain = (pixels * _COLOUR_VALUES).sum(-1) / (_COLOUR_VALUES**2).sum(-1)
    lit = np.clip(gain, 0.72, 1.22)[..., None] * _COLOUR_VALUES
    return np.asarray(np.linalg.norm(pixels - lit, axis=-1), np.float32)


def _name_of(pixels: Floats) -> str | None:
    distances = _brightness_free_distance(np.median(pixels, axis=0))
    nearest = int(distances.argmin())
    return _COLOUR_NAMES[nearest] if distances[nearest] <= _MAX_COLOUR_DISTANCE else None


def _coverage(picture: Floats, ground: Floats, colour: Floats) -> tuple[Floats, Floats]:
    """Share of `colour` in each pixel, [H, W] in 0..1, beside background in light or shadow.

    The second array is the distance, in RGB, between the pixel and that mixture.
    """
    towards = colour - ground
    across = -ground
    rest = picture - ground
    aa, ss = (towards**2).sum(-1), (across**2).sum(-1)
    cross = (towards * across).sum(-1)
    along_a, along_s = (rest * towards).sum(-1), (rest * across).sum(-1)
    shadow = np.clip((along_s * aa - along_a * cross) / np.maximum(aa * ss - cross**2, 1), 0, _SHADOW)
    share = np.clip((along_a - shadow * cross) / np.maximum(aa, 1), 0, 1)
    left = rest - share[..., None] * towards - shadow[..., None] * across
    return np.asarray(share, np.float32), np.asarray(np.linalg.norm(left, axis=-1), np.float32)
