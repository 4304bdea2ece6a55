"""Decides what a bounce world holds: its size, colours, balls and actions, and how a scene is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SIDE: Final = 32  # pixels
RADIUS: Final = 3.5
CONTACT: Final = 2 * RADIUS  # between the centres of two balls that touch
MAX_BALLS: Final = 2
FRAMES_PER_BLOCK: Final = 3
SPEEDS: Final = (0.6, 1.6)  # pixels a frame
BACKGROUND: Final = (24, 26, 34)
#: in this order: a change of colour gives every ball the next one
COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (228, 42, 46),
    "yellow": (240, 216, 40),
    "green": (44, 186, 66),
    "cyan": (54, 208, 222),
    "blue": (58, 84, 236),
    "magenta": (222, 70, 210),
}
COLOUR_NAMES: Final = tuple(COLOURS)
#: what a block's prompt may ask for, and the direction that it pushes to (x right, y down)
ACTIONS: Final[dict[str, tuple[int, int]]] = {
    "none": (0, 0),
    "push left": (-1, 0),
    "push right": (1, 0),
    "push up": (0, -1),
    "push down": (0, 1),
    "colour": (0, 0),
}
ACTION_NAMES: Final = tuple(ACTIONS)
NONE: Final = ACTION_NAMES.index("none")
COLOUR: Final = ACTION_NAMES.index("colour")


@dataclass(frozen=True, eq=False)
class Scenes:
    """States of several worlds at one frame.

    Attributes:
        position: Centres in pixels, x then y, [worlds, 2, 2].
        velocity: In pixels a frame, [worlds, 2, 2].
        colour: Index into COLOURS, [worlds, 2].
        present: Which of the two balls there are, [worlds, 2].
    """

    position: Floats
    velocity: Floats
    colour: NDArray[np.int64]
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.position)

    def take(self, index: NDArray[np.int64] | slice) -> Scenes:
        """Return some of the worlds."""
        return Scenes(self.position[index], self.velocity[index], self.colour[index], self.present[index])


def sample_scenes(rng: np.random.Generator, number: int) -> Scenes:
    """Return worlds of one or two balls of distinct colours, as exact as their text is: to two decimals.

    No two touch: there is at least a pixel between them.
    """
    colour = rng.permuted(np.tile(np.arange(len(COLOURS)), (number, 1)), axis=1)[:, :MAX_BALLS]
    present = np.arange(MAX_BALLS) < rng.integers(1, MAX_BALLS + 1, number)[:, None]
    slowest, fastest = SPEEDS
    speed = rng.uniform(slowest + 0.01, fastest - 0.01, (number, MAX_BALLS))  # rounding keeps it inside
    angle = rng.uniform(0, 2 * np.pi, (number, MAX_BALLS))
    velocity = speed[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    position = _places(rng, number)
    while (is_near := nearest(position, present) < CONTACT + 1).any():
        position[is_near] = _places(rng, int(is_near.sum()))
    return Scenes(position, velocity.round(2), colour.astype(np.int64), present)


def nearest(position: Floats, present: NDArray[np.bool_]) -> Floats:
    """Return how far apart the two nearest centres of each world are, [worlds]; infinite for one alone."""
    apart = np.linalg.norm(position[:, :, None] - position[:, None], axis=-1)
    is_pair = present[:, :, None] & present[:, None] & ~np.eye(MAX_BALLS, dtype=np.bool_)
    least: Floats = np.where(is_pair, apart, np.inf).min((1, 2))
    return least


def _places(rng: np.random.Generator, number: int) -> Floats:
    places: Floats = rng.uniform(RADIUS, SIDE - RADIUS, (number, MAX_BALLS, 2)).round(2)
    return places


def describe_scene(scenes: Scenes, world: int = 0) -> str:
    """Return a world's text, such as ``red ball at 8,20 moving 1.2,-0.7; blue ball at ...``."""
    balls = []
    for ball in np.flatnonzero(scenes.present[world]):
        (x, y), (dx, dy) = scenes.position[world, ball], scenes.velocity[world, ball]
        name = COLOUR_NAMES[scenes.colour[world, ball]]
        balls.append(f"{name} ball at {x:.4g},{y:.4g} moving {dx:.3g},{dy:.3g}")
    return "; ".join(balls)
