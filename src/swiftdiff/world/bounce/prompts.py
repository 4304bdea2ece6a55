"""Turns a bounce prompt into features: parses a scene's or an action's text, or says what is wrong."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swiftdiff.errors import RequestError
from swiftdiff.validation import unknown_name

from .scene import (
    ACTION_NAMES,
    COLOUR,
    COLOUR_NAMES,
    CONTACT,
    MAX_BALLS,
    NONE,
    RADIUS,
    SIDE,
    SPEEDS,
    Floats,
    Scenes,
    nearest,
)

NUM_TOKENS: Final = 1 + MAX_BALLS
NUM_FEATURES: Final = 32
_NUMBER = r"\s*([-+]?\d+(?:\.\d+)?)\s*"
_BALL = re.compile(rf"\s*(\w+)\s+ball\s+at{_NUMBER},{_NUMBER}\bmoving{_NUMBER},{_NUMBER}", re.IGNORECASE)
_COLOUR_OF_BALL = re.compile(r"(\w+)\s+ball\b")
_WAVES = np.pi / SIDE * np.array([1.0, 2.0, 4.0, 8.0])
_EXAMPLE = "red ball at 8,20 moving 1.2,-0.7; blue ball at 20,9 moving -0.5,0.9"
_SPEED_TOLERANCE = 0.01  # what is written has two decimals


class BouncePrompts:
    """Encodes bounce's prompts; it has no state and no weights.

    A clip's first prompt is a scene. Later blocks are told an action and which balls there are, such as
    ``push left; red ball; blue ball``: as with a film's caption, that stays while it goes on. Where the balls
    are the model must see in the past. Users ask for the action alone.
    """

    def encode(self, text: str) -> Tensor:
        """Return features of a scene, of an action, or of an action and balls, [1, 3, 32].

        Raises:
            RequestError: The text is none of these.
        """
        wanted = " ".join(text.lower().split())
        action, *balls = (part.strip() for part in wanted.split(";"))
        if action in ACTION_NAMES:
            return torch.from_numpy(_told_features(ACTION_NAMES.index(action), balls))
        if " ball" not in f" {wanted}":
            raise RequestError(
                f"{unknown_name('action', text, ACTION_NAMES)}; or a scene such as `{_EXAMPLE}`"
            )
        return torch.from_numpy(scene_features(parse_scene(text)))

    def null(self) -> Tensor:
        """Return what no prompt is, for guidance: zeros, [1, 3, 32]."""
        return torch.zeros(1, NUM_TOKENS, NUM_FEATURES)

    def follow(self, told: str, asked: str) -> str:
        """Return a later block's text: an action, and the balls of `told` in the colours they now have.

        Args:
            told: The text of the block before.
            asked: An action; anything else is returned as it is.
        """
        action = " ".join(asked.lower().split())
        if action not in ACTION_NAMES:
            return asked
        step = int(action == ACTION_NAMES[COLOUR])
        names = [name for name in _COLOUR_OF_BALL.findall(told.lower()) if name in COLOUR_NAMES]
        shown = [COLOUR_NAMES[(COLOUR_NAMES.index(name) + step) % len(COLOUR_NAMES)] for name in names]
        return "; ".join([action, *(f"{name} ball" for name in shown)])


def parse_scene(text: str) -> Scenes:
    """Return the one world that a scene's text describes.

    Raises:
        RequestError: It cannot be parsed, or names what the world does not have.
    """
    parts = [part for part in text.split(";") if part.strip()]
    if not 1 <= len(parts) <= MAX_BALLS:
        raise RequestError.for_field("balls", len(parts), f"1 to {MAX_BALLS}, as in `{_EXAMPLE}`", "prompt")
    position, velocity = np.full((1, MAX_BALLS, 2), SIDE / 2), np.zeros((1, MAX_BALLS, 2))
    colour = np.zeros((1, MAX_BALLS), np.int64)
    present = np.zeros((1, MAX_BALLS), np.bool_)
    for ball, part in enumerate(parts):
        found = _BALL.fullmatch(part)
        if found is None:
            raise RequestError.for_field(
                f"ball {ball + 1}", part.strip(), "like `red ball at 8,20 moving 1.2,-0.7`", "prompt"
            )
        name = found[1].lower()
        if name not in COLOUR_NAMES:
            raise RequestError(f"prompt: {unknown_name('colour', name, COLOUR_NAMES)}")
        position[0, ball] = float(found[2]), float(found[3])
        velocity[0, ball] = float(found[4]), float(found[5])
        colour[0, ball] = COLOUR_NAMES.index(name)
        present[0, ball] = True
        _check_ball(name, position[0, ball], velocity[0, ball])
    if len(set(colour[present])) < len(parts):
        raise RequestError(f"prompt: two balls of one colour in {text!r}; each needs its own")
    if (apart := float(nearest(position, present)[0])) < CONTACT:
        raise RequestError(
            f"prompt: centres {apart:.3g} pixels apart in {text!r}; balls touch at {CONTACT:g}"
        )
    return Scenes(position, velocity, colour, present)


def _told_features(action: int, balls: list[str]) -> NDArray[np.float32]:
    """Return features of an action and of balls such as ``red ball``, [1, 3, 32]."""
    if len(balls) > MAX_BALLS:
        raise RequestError.for_field("balls", len(balls), f"at most {MAX_BALLS}", "prompt")
    colour, present = np.zeros((1, MAX_BALLS), np.int64), np.zeros((1, MAX_BALLS), np.bool_)
    for ball, text in enumerate(balls):
        found = _COLOUR_OF_BALL.fullmatch(text)
        if found is None:
            raise RequestError.for_field(
                f"ball {ball + 1}", text, "like `red ball` after an action", "prompt"
            )
        if found[1] not in COLOUR_NAMES:
            raise RequestError(f"prompt: {unknown_name('colour', found[1], COLOUR_NAMES)}")
        colour[0, ball], present[0, ball] = COLOUR_NAMES.index(found[1]), True
    return block_features(colour, present, np.array([action]))


def _check_ball(name: str, position: Floats, velocity: Floats) -> None:
    if not ((position >= RADIUS) & (position <= SIDE - RADIUS)).all():
        where = f"{position[0]:g},{position[1]:g}"
        raise RequestError.for_field(f"{name} ball at", where, f"{RADIUS} to {SIDE - RADIUS} each", "prompt")
    speed = float(np.linalg.norm(velocity))
    slowest, fastest = SPEEDS
    if not slowest - _SPEED_TOLERANCE <= speed <= fastest + _SPEED_TOLERANCE:
        raise RequestError.for_field(
            f"{name} ball's speed", round(speed, 3), f"{slowest} to {fastest} pixels a frame", "prompt"
        )


def scene_features(scenes: Scenes) -> NDArray[np.float32]:
    """Return a token for the action `none` and one for each ball, zeros for a missing one: [worlds, 3, 32].

    Channels of a ball: 0 that it is one; 2-7 colour; 8-9 place from -1 to 1; 10-25 its sines and cosines at
    wavelengths of 64 to 8 pixels; 26-27 velocity; 28-29 its direction; 30 speed; 31 its number.
    Of an action: 1 that it is one; 2-7 which.
    """
    features = action_features(np.full(len(scenes), NONE))
    balls = features[:, 1:]
    phase = scenes.position[..., None] * _WAVES
    waves = np.concatenate([np.sin(phase), np.cos(phase)], -1).reshape(len(scenes), MAX_BALLS, -1)
    speed = np.linalg.norm(scenes.velocity, axis=-1, keepdims=True)
    balls[..., 0] = 1
    balls[..., 2:8] = np.eye(len(COLOUR_NAMES))[scenes.colour]
    balls[..., 8:10] = scenes.position / (SIDE / 2) - 1
    balls[..., 10:26] = waves
    balls[..., 26:28] = scenes.velocity
    balls[..., 28:30] = scenes.velocity / np.maximum(speed, 1e-9)
    balls[..., 30:31] = speed
    balls[..., 31] = np.arange(MAX_BALLS) / MAX_BALLS
    balls *= scenes.present[..., None]
    return features


def action_features(actions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return an action's token and two of zeros, [actions, 3, 32]."""
    features = np.zeros((len(actions), NUM_TOKENS, NUM_FEATURES), np.float32)
    features[:, 0, 1] = 1
    features[:, 0, 2:8] = np.eye(len(ACTION_NAMES))[actions]
    return features


def block_features(
    colour: NDArray[np.int64], present: NDArray[np.bool_], actions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return features of later blocks, [blocks, 3, 32]: an action, and which balls there are but not where.

    Args:
        colour: As the block shows them, index into COLOURS, [blocks, 2].
        present: [blocks, 2].
        actions: [blocks].
    """
    features = action_features(actions)
    balls = features[:, 1:]
    balls[..., 0] = 1
    balls[..., 2:8] = np.eye(len(COLOUR_NAMES))[colour]
    balls[..., 31] = np.arange(MAX_BALLS) / MAX_BALLS
    balls *= present[..., None]
    return features
