"""Draws training clips: simulated, drawn and encoded, with the prompts that an engine gives their blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor

from .blemishes import draw_blemished
from .framewise import encode_clips
from .physics import Course, simulate
from .prompts import NUM_FEATURES, NUM_TOKENS, block_features, scene_features
from .render import draw
from .scene import ACTIONS, FRAMES_PER_BLOCK, MAX_BALLS, NONE, sample_scenes

#: share of clips that begin in the middle, their first block being context alone: what a block sees once its
#: clip's beginning has left the window
_MIDDLE_SHARE = 0.4
_LONGEST_BEFORE = 8  # blocks before a clip that begins in the middle
_ACTION_SHARE = 0.25
_DROP = 0.03  # of the prompts, for guidance


@dataclass(frozen=True, eq=False)
class Clips:
    """A batch on its device.

    Attributes:
        latents: Clean and standardised, [B, C, blocks * 3, h, w].
        past: The same with faults, as what a model makes has; [B, C, blocks * 3, h, w].
        prompts: Of each block, [B, blocks, 3, 32].
        counts: Of each block, [B, blocks]: 1, or 0 where its prompt cannot tell what it shows.
    """

    latents: Tensor
    past: Tensor
    prompts: Tensor
    counts: Tensor


def make_clips(rng: np.random.Generator, number: int, blocks: int, vae: AutoencoderKLWan) -> Clips:
    """Return fresh clips; a clip's first prompt is its scene, later ones are actions and balls."""
    scenes = sample_scenes(rng, number)
    is_middle = (rng.random(number) < _MIDDLE_SHARE) & (blocks > 1)
    before = np.where(is_middle, rng.integers(1, _LONGEST_BEFORE + 1, number), 0)
    actions = _sample_actions(rng, number, _LONGEST_BEFORE + blocks)
    course = _cut(simulate(scenes, actions), before * FRAMES_PER_BLOCK, blocks * FRAMES_PER_BLOCK)
    rows = np.arange(number)[:, None]
    shown = actions[rows, before[:, None] + np.arange(blocks)]
    colour = course.colour[:, ::FRAMES_PER_BLOCK]
    present = np.broadcast_to(course.present[:, None], colour.shape)
    told = block_features(colour.reshape(-1, MAX_BALLS), present.reshape(-1, MAX_BALLS), shown.ravel())
    prompts = told.reshape(number, blocks, NUM_TOKENS, NUM_FEATURES)
    prompts[~is_middle, 0] = scene_features(scenes)[~is_middle]
    prompts[rng.random((number, blocks)) < _DROP] = 0
    counts = np.ones((number, blocks), np.float32)
    counts[is_middle, 0] = 0
    device = vae.device
    return Clips(
        encode_clips(vae, draw(course, device)),
        encode_clips(vae, draw_blemished(rng, course, device)),
        torch.from_numpy(prompts).to(device),
        torch.from_numpy(counts).to(device),
    )


def _sample_actions(rng: np.random.Generator, number: int, blocks: int) -> NDArray[np.int64]:
    """Return actions [number, blocks]: mostly none, and none in the first block: its prompt is the scene."""
    actions = rng.integers(len(ACTIONS), size=(number, blocks))
    actions[rng.random((number, blocks)) >= _ACTION_SHARE] = NONE
    actions[:, 0] = NONE
    return actions


def _cut(course: Course, first: NDArray[np.int64], frames: int) -> Course:
    """Return `frames` frames of each world from its own first one on."""
    rows = np.arange(len(first))[:, None]
    columns = first[:, None] + np.arange(frames)
    return Course(course.position[rows, columns], course.colour[rows, columns], course.present, course.end)
