"""Owns the true course of a bounce world: constant speed, walls that turn balls back, and what actions do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scene import ACTIONS, COLOUR, COLOURS, FRAMES_PER_BLOCK, RADIUS, SIDE, Floats, Scenes

_PUSH = 2.0  # against a ball's own unit direction
_DIRECTIONS = np.array(list(ACTIONS.values()), np.float64)


@dataclass(frozen=True, eq=False)
class Course:
    """Worlds over time.

    Attributes:
        position: [worlds, frames, 3, 2].
        colour: [worlds, frames, 3].
        present: [worlds, 3].
        end: The state at the last frame.
    """

    position: Floats
    colour: NDArray[np.int64]
    present: NDArray[np.bool_]
    end: Scenes


def simulate(scenes: Scenes, actions: NDArray[np.int64], *, is_start: bool = True) -> Course:
    """Return the course of worlds under one action a block, each of three frames.

    An action works from its block's first frame on. A push turns a ball and keeps its speed: the new
    direction is that of its unit direction plus twice the push's.

    Args:
        scenes: Where the worlds are.
        actions: Index into ACTIONS, [worlds, blocks].
        is_start: The first frame shows `scenes` itself; otherwise it is one frame later.
    """
    position, velocity, colour = scenes.position.copy(), scenes.velocity.copy(), scenes.colour.copy()
    positions, colours = [], []
    for frame in range(actions.shape[1] * FRAMES_PER_BLOCK):
        block, inside = divmod(frame, FRAMES_PER_BLOCK)
        if inside == 0:
            velocity = _push(velocity, _DIRECTIONS[actions[:, block]])
            colour = (colour + (actions[:, block] == COLOUR)[:, None]) % len(COLOURS)
        if frame > 0 or not is_start:
            position, velocity = _move(position, velocity)
        positions.append(position)
        colours.append(colour)
    return Course(
        np.stack(positions, 1),
        np.stack(colours, 1),
        scenes.present,
        Scenes(position, velocity, colour, scenes.present),
    )


def _push(velocity: Floats, direction: Floats) -> Floats:
    """Turn velocities [worlds, 3, 2] towards directions [worlds, 2]; zero directions turn nothing."""
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    wanted = velocity / np.maximum(speed, 1e-9) + _PUSH * direction[:, None]
    turned: Floats = speed * wanted / np.maximum(np.linalg.norm(wanted, axis=-1, keepdims=True), 1e-9)
    return turned


def _move(position: Floats, velocity: Floats) -> tuple[Floats, Floats]:
    moved = position + velocity
    low, high = RADIUS, SIDE - RADIUS
    under, over = moved < low, moved > high
    moved = np.where(under, 2 * low - moved, np.where(over, 2 * high - moved, moved))
    return moved, np.where(under | over, -velocity, velocity)
