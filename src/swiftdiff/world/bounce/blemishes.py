"""Draws clips with faults that models make: a ball that fades, one too many, and one that takes on a colour.

They are what a past of the model's own can hold after many blocks. Training takes it back few: without these
a model has never seen what it must mend.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from .physics import Course
from .render import draw
from .scene import COLOURS, FRAMES_PER_BLOCK, RADIUS, SIDE, Floats

_SHARE: Final = 0.5  # of the clips
_LONGEST: Final = 3  # blocks on end
_FARTHEST: Final = 12.0  # pixels on each axis from a ball to its double
_FAINTEST: Final = 0.3  # a ball that is gone cannot be known


def draw_blemished(rng: np.random.Generator, course: Course, device: torch.device) -> Tensor:
    """Return pictures as `draw` does, some clips with a fault for one to three blocks.

    One ball fades there by some of its opacity, and a third disc shows with some: over a ball, which changes
    its colour, or beside it; in the colour of that ball or in any.

    Args:
        rng: Chooses the faults.
        course: What is true.
        device: Of the pictures.
    """
    worlds, frames, balls = course.colour.shape
    rows = np.arange(worlds)
    block = np.arange(frames) // FRAMES_PER_BLOCK
    first = rng.integers(-_LONGEST + 1, block[-1] + 1, (worlds, 1))
    within = (block >= first) & (block < first + rng.integers(1, _LONGEST + 1, (worlds, 1)))
    is_faulty = within & (rng.random((worlds, 1)) < _SHARE)
    number = course.present.sum(1)
    fading, doubled = (rng.integers(0, number) for _ in range(2))
    strength = np.ones((worlds, frames, balls + 1))
    strength[rows, :, fading] = np.where(is_faulty, rng.uniform(_FAINTEST, 1, (worlds, 1)), 1)
    strength[..., -1] = np.where(is_faulty, rng.uniform(0, 0.8, (worlds, 1)), 0)
    away = rng.uniform(-_FARTHEST, _FARTHEST, (worlds, 1, 2)) * (rng.random((worlds, 1, 1)) < 0.7)
    place: Floats = np.clip(course.position[rows, :, doubled] + away, RADIUS, SIDE - RADIUS)
    is_same = rng.random((worlds, 1)) < 0.5
    colour = np.where(is_same, course.colour[rows, :, doubled], rng.integers(len(COLOURS), size=(worlds, 1)))
    faulty = Course(
        np.concatenate([course.position, place[:, :, None]], 2),
        np.concatenate([course.colour, colour[:, :, None]], 2),
        np.concatenate([course.present, np.ones((worlds, 1), np.bool_)], 1),
        course.end,
    )
    return draw(faulty, device, strength)
