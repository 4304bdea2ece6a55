"""Decides what is proposed for a model's worlds: a prompt to begin with, and words that steer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftdiff.world.loading import WorldModel


def propose(model: WorldModel) -> tuple[str, tuple[str, ...]]:
    """Return a prompt for a world, another one each time, and actions; empty where none are known."""
    if model.settings.prompt_encoder != "bounce":
        return "", ()
    import numpy as np

    from swiftdiff.world.bounce.scene import ACTION_NAMES, NONE, describe_scene, sample_scenes

    scene = describe_scene(sample_scenes(np.random.default_rng(), 1))
    return scene, tuple(name for name in ACTION_NAMES if name != ACTION_NAMES[NONE])
