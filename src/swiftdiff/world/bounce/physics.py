"""Owns the true course of a bounce world: balls keep their speed whatever turns them.

Walls turn them back, balls that meet turn each other back, and actions push them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scene import (
    ACTIONS,
    COLOUR,
    COLOURS,
    CONTACT,
    FRAMES_PER_BLOCK,
    MAX_BALLS,
    RADIUS,
    SIDE,
    Floats,
    Scenes,
)

_PUSH = 2.0  # against a ball's own unit direction
#: parts of a frame's time: balls meet at the end of one, so by then they are at most 0.8 pixels too near
_PARTS = 4
_PAIRS = tuple((one, other) for one in range(MAX_BALLS) for other in range(one + 1, MAX_BALLS))
_DIRECTIONS = np.array(list(ACTIONS.values()), np.float64)


@dataclass(frozen=True, eq=False)
class Course:
    """Worlds over time.

    Attributes:
        position: [worlds, frames, 2, 2].
        colour: [worlds, frames, 2].
        present: [worlds, 2].
        end: The state at the last frame.
    """

    position: Floats
    colour: NDArray[np.int64]
    present: NDArray[np.bool_]
    end: Scenes


def simulate(scenes: Scenes, actions: NDArray[np.int64], *, is_start: bool = True) -> Course:
    """Return the course of worlds under one action a block, each of three frames.

    An action works from its block's first frame on. A push turns a ball and keeps its speed: the new
    direction is that of its unit direction plus twice the push's. A ball that runs into another is turned
    back by it as by a wall that touches both: of its velocity, the part towards the other is reversed.

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
            for _ in range(_PARTS):
                position, velocity = _move(position, velocity, 1 / _PARTS)
                velocity = _meet(position, velocity, scenes.present)
        positions.append(position)
        colours.append(colour)
    return Course(
        np.stack(positions, 1),
        np.stack(colours, 1),
        scenes.present,
        Scenes(position, velocity, colour, scenes.present),
    )


def _push(velocity: Floats, direction: Floats) -> Floats:
    """Turn velocities [worlds, 2, 2] towards directions [worlds, 2]; zero directions turn nothing."""
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    wanted = velocity / np.maximum(speed, 1e-9) + _PUSH * direction[:, None]
    turned: Floats = speed * wanted / np.maximum(np.linalg.norm(wanted, axis=-1, keepdims=True), 1e-9)
    return turned


def _move(position: Floats, velocity: Floats, time: float) -> tuple[Floats, Floats]:
    moved = position + velocity * time
    low, high = RADIUS, SIDE - RADIUS
    under, over = moved < low, moved > high
    moved = np.where(under, 2 * low - moved, np.where(over, 2 * high - moved, moved))
    return moved, np.where(under | over, -velocity, velocity)


def _meet(position: Floats, velocity: Floats, present: NDArray[np.bool_]) -> Floats:
    """Return velocities [worlds, 2, 2] once those that lead towards a ball that is touched are turned."""
    velocity = velocity.copy()
    for one, other in _PAIRS:
        towards = position[:, other] - position[:, one]
        apart = np.linalg.norm(towards, axis=-1)
        worlds = np.flatnonzero((apart < CONTACT) & present[:, one] & present[:, other])
        normal = towards[worlds] / np.maximum(apart[worlds, None], 1e-9)
        for ball, into in ((one, normal), (other, -normal)):
            approach = (velocity[worlds, ball] * into).sum(-1, keepdims=True)
            velocity[worlds, ball] -= 2 * np.maximum(approach, 0) * into
    return velocity
