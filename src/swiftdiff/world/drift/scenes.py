"""Owns what clips begin with when drift is measured, and what they should have shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swiftdiff.errors import ConfigError
from swiftdiff.world.drift.error import Frames
from swiftdiff.world.loading import WorldModel

BOUNCE = "bounce"  # the prompt encoder that tells a model of that world, trained or not


@dataclass(frozen=True)
class Scene:
    """What one clip begins with.

    Attributes:
        prompt: Its text.
        seed: Of its noise.
        truth: What the clip should show if nothing is done, uint8 [F, H, W, 3]; None where nobody knows.
    """

    prompt: str
    seed: int
    truth: Frames | None


def make_scene(model: WorldModel, seed: int, num_blocks: int, prompt: str | None = None) -> Scene:
    """Return a clip's beginning.

    Args:
        model: What makes the clip.
        seed: Of the scene and of the noise.
        num_blocks: Length of the clip.
        prompt: The user's; None is a scene of the model's world.

    Raises:
        ConfigError: There is no prompt, and the model has no world to choose scenes from.
    """
    if prompt is not None:
        return Scene(prompt, seed, None)
    if model.settings.prompt_encoder != BOUNCE:
        raise ConfigError(f"name a --prompt: {model.name} has no scenes of its own to choose from")
    from swiftdiff.world.bounce.physics import simulate
    from swiftdiff.world.bounce.render import draw
    from swiftdiff.world.bounce.scene import NONE, describe_scene, sample_scenes

    scenes = sample_scenes(np.random.default_rng(seed), 1)
    course = simulate(scenes, np.full((1, num_blocks), NONE, np.int64))
    pictures = draw(course)[0].permute(1, 2, 3, 0).numpy()
    return Scene(describe_scene(scenes), seed, ((pictures + 1) * 127.5).round().astype(np.uint8))
