"""Stage 3, the ControlNets: each steers the frozen base by one kind of control image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from swiftdiff.scenes.control import control_from_scene

from .diffusion import BatchMaker, Family, velocity_loss
from .trainer import Plan

#: prompts are dropped more often than for the base, so that the control image has to be read
_DROP = 0.3


def controlnet_plans(kind: str) -> tuple[tuple[int, Plan], ...]:
    """Small pictures first, then the native size."""
    return (
        (64, Plan(f"controlnet-{kind}-64", steps=1500, batch_size=16, learning_rate=6e-4, ema_decay=0.99)),
        (128, Plan(f"controlnet-{kind}-128", steps=1500, batch_size=16, learning_rate=5e-4, ema_decay=0.99)),
    )


class ControlNetTask:
    """A stock ControlNetModel (Zhang et al. 2023, arXiv 2302.05543) on scenes and their control images."""

    def __init__(self, family: Family, controlnet: ControlNetModel, kind: str, side: int) -> None:
        self._family = family
        self._controlnet = controlnet
        self._kind = kind
        self._side = side
        self._batches = BatchMaker(family, side, object_weight=2.0)
        family.freeze()

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return {"controlnet": self._controlnet}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch."""
        scenes = self._batches.scenes(rng, batch_size)
        with torch.no_grad():
            batch = self._batches.make(rng, scenes, drop=_DROP)
        controls = np.stack([control_from_scene(self._kind, scene, self._side) for scene in scenes])
        image = torch.from_numpy(controls).permute(0, 3, 1, 2).to(self._family.device).float() / 255
        down, mid = self._controlnet(
            batch.noisy,
            batch.timesteps,
            encoder_hidden_states=batch.hidden,
            controlnet_cond=image,
            added_cond_kwargs=batch.added,
            return_dict=False,
        )
        return velocity_loss(self._family.unet, batch, down, mid)
