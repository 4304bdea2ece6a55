"""Stage 1, the autoencoder: pictures of the world, weighted towards the balls, with latents that may err.

The transformer's latents are never exact. So the decoder learns from latents with noise relative to their own
spread, and draws a whole ball where an exact decoder would draw the error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn import functional as F

from swiftdiff.models.shapes.trainer import Plan

from .framewise import decode_frames, encode_clips, encode_frames, framewise
from .physics import Course
from .render import coverage, draw
from .scene import sample_scenes

PLAN = Plan(
    "autoencoder",
    steps=6000,
    batch_size=32,
    learning_rate=4e-3,
    warmup_steps=50,
    ema_decay=0.998,
    weight_decay=0.0,
)
_BALL_WEIGHT = 4.0
_MOST_NOISE = 0.3  # of the latents' own deviation
_SIZE_WEIGHT = 1e-4


class AutoencoderTask:
    """Reconstruct single pictures: L1, squared error, image gradients, a whisper against large latents."""

    def __init__(self, vae: AutoencoderKLWan, device: torch.device) -> None:
        self._vae = vae.to(device)
        self._device = device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return {"vae": self._vae}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch."""
        course = still_pictures(rng, batch_size)
        target = draw(course, self._device)
        weight = _near_balls(course, self._device)
        with framewise(self._vae):
            latents = encode_frames(self._vae, target)
            spread = latents.detach().std((0, 2, 3, 4), keepdim=True)
            amount = _uniform(rng, (batch_size, 1, 1, 1, 1), self._device) * _MOST_NOISE
            noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), np.float32)).to(self._device)
            output = decode_frames(self._vae, latents + amount * spread * noise)
        error = output - target
        pixel = (weight * (error.abs() + 2 * error.square())).mean()
        slopes = (error.diff(dim=-1).abs() * weight[..., 1:]).mean() + (
            error.diff(dim=-2).abs() * weight[..., 1:, :]
        ).mean()
        total: Tensor = pixel + 0.5 * slopes + _SIZE_WEIGHT * latents.square().mean()
        return total


def still_pictures(rng: np.random.Generator, number: int) -> Course:
    """Return worlds of one frame."""
    scenes = sample_scenes(rng, number)
    return Course(scenes.position[:, None], scenes.colour[:, None], scenes.present, scenes)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(rng.random(shape, np.float32)).to(device)


def _near_balls(course: Course, device: torch.device) -> Tensor:
    """Return what an error counts, [N, 1, 1, H, W]: more on a ball and on the two pixels around it."""
    covered = coverage(course, device).amax(2)
    near = F.max_pool2d(covered, 5, stride=1, padding=2)
    return 1 + _BALL_WEIGHT * near.unsqueeze(1)


@torch.no_grad()
def standardise(vae: AutoencoderKLWan, device: torch.device, seed: int = 10_000) -> None:
    """Note each latent channel's mean and deviation in the autoencoder's config, where stock Wan looks."""
    latents = encode_clips(vae, draw(still_pictures(np.random.default_rng(seed), 1024), device))
    # noted values are 0 and 1 while this is measured: see `architecture.build_autoencoder`
    vae.register_to_config(
        latents_mean=[round(float(value), 6) for value in latents.mean((0, 2, 3, 4))],
        latents_std=[round(float(value), 6) for value in latents.std((0, 2, 3, 4))],
    )
