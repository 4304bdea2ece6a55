"""Describes a picture's manner by numbers that do not depend on what it shows: colours, lines, repetition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Image8 = NDArray[np.uint8]

_SIDE = 64  # pictures are described at this size, so that fine artefacts matter little
_LEVELS = 4


def describe(image: Image8) -> Floats:
    """Describe a picture [H, W, 3] (sides of at least 64) as a vector: the input of the style classifier."""
    picture = _resized(image.astype(np.float32) / np.float32(255))
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    parts = (_colours(picture), _lines(grey), _repetition(grey), _blocks(picture))
    return np.concatenate(parts).astype(np.float32)


def _resized(picture: Floats) -> Floats:
    height, width = picture.shape[:2]
    if height % _SIDE == 0 and width % _SIDE == 0:
        return np.asarray(
            picture.reshape(_SIDE, height // _SIDE, _SIDE, width // _SIDE, 3).mean((1, 3)), np.float32
        )
    factors = (_SIDE / height, _SIDE / width, 1)
    return np.asarray(ndimage.zoom(picture, factors, order=1, grid_mode=True, mode="nearest"), np.float32)


def _colours(picture: Floats) -> Floats:
    """Square root of a soft colour histogram, and moments of brightness and saturation."""
    places = np.clip(picture[::2, ::2].reshape(-1, 3).T, 0, 1) * (_LEVELS - 1)
    low = np.minimum(places.astype(int), _LEVELS - 2)
    parts = (1 - (places - low), places - low)  # how much of a pixel belongs to the lower and the upper level
    index = low[0] * _LEVELS**2 + low[1] * _LEVELS + low[2]
    histogram = np.zeros(_LEVELS**3)
    for red, green, blue in np.ndindex(2, 2, 2):
        weight = parts[red][0] * parts[green][1] * parts[blue][2]
        histogram += np.bincount(index + red * _LEVELS**2 + green * _LEVELS + blue, weight, _LEVELS**3)
    brightness, spread = picture.max(2), np.ptp(picture, axis=2)
    moments = [brightness.mean(), brightness.std(), spread.mean(), spread.std(), *picture.mean((0, 1))]
    quantiles = np.quantile(brightness, (0.05, 0.25, 0.5, 0.75, 0.95))
    return np.concatenate([np.sqrt(histogram / len(index)), moments, quantiles]).astype(np.float32)


def _lines(grey: Floats) -> Floats:
    """How strong gradients are and which way they point (8 ways), and how much of the picture is flat."""
    dy, dx = np.gradient(ndimage.gaussian_filter(grey, 0.6))
    strength = np.hypot(dx, dy)
    way = ((np.arctan2(dy, dx) % np.pi) / np.pi * 8).astype(int) % 8
    ways = np.bincount(way.ravel(), strength.ravel(), 8) / strength.size
    levels = [(strength > level).mean() for level in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)]
    return np.concatenate([ways * 10, levels]).astype(np.float32)


def _repetition(grey: Floats) -> Floats:
    """Logarithm of the spectrum's power in rings and sectors: grids, bands and hatching show here."""
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2 / grey.size
    fy, fx = np.meshgrid(np.fft.fftfreq(_SIDE), np.fft.rfftfreq(_SIDE), indexing="ij")
    ring = np.digitize(np.hypot(fx, fy), (0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4))
    sector = ((np.arctan2(fy, fx) % np.pi) / np.pi * 6 + 0.5).astype(int) % 6
    cell = ring * 6 + sector
    totals = np.bincount(cell.ravel(), power.ravel(), 48)
    counts = np.bincount(cell.ravel(), minlength=48)
    return np.log10(totals / np.maximum(counts, 1) + 1e-4).astype(np.float32)


def _blocks(picture: Floats) -> Floats:
    """How even each block of 4 x 4 pixels is: high where a picture is made of blocks."""
    blocks = picture.reshape(_SIDE // 4, 4, _SIDE // 4, 4, 3)
    within = blocks.std((1, 3)).mean(2)
    shifted = np.roll(picture, 2, (0, 1)).reshape(blocks.shape).std((1, 3)).mean(2)
    return np.array(
        [
            within.mean(),
            shifted.mean(),
            np.log(shifted.mean() + 1e-3) - np.log(within.mean() + 1e-3),
            np.quantile(within, 0.9),
        ],
        np.float32,
    )
