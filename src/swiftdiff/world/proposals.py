"""Decides what is proposed for a model's clips: a prompt to begin with, and words that steer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftdiff.world.loading import WorldModel


@dataclass(frozen=True)
class Proposal:
    """What a model can be told.

    Attributes:
        example: A prompt to begin with.
        prompts: Every prompt that is understood, where they can be listed; else empty.
        actions: Words that steer for a block, where prompts after the first block are actions; else empty.
    """

    example: str
    prompts: tuple[str, ...]
    actions: tuple[str, ...]


def propose(model: WorldModel) -> Proposal:
    """Return what a model can be told; its example is another one each time."""
    import numpy as np

    from swiftdiff.world.loading import EmbeddedPrompts

    rng = np.random.default_rng()
    if isinstance(model.prompts, EmbeddedPrompts):
        texts = model.prompts.texts
        return Proposal(texts[int(rng.integers(len(texts)))], texts, ())
    from swiftdiff.world.bounce.scene import ACTION_NAMES, NONE, describe_scene, sample_scenes

    actions = tuple(name for name in ACTION_NAMES if name != ACTION_NAMES[NONE])
    return Proposal(describe_scene(sample_scenes(rng, 1)), (), actions)
