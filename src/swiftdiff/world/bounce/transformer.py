"""Stages 2 and 3, the transformer: clean past and noisy block, at the noise levels that the engine uses.

What it learns is a flow, noise minus clean, as the engine's sampler expects. The next block follows from the
past and the prompt alone, so the first step, from pure noise, decides how good it is: it gets the largest
share of blocks, the three further steps the others, and levels in between none. Stage 2 has the true past,
with some noise and some faults. Stage 3 has what the model makes of it: blocks of its own as the past, and
its own first guess as what the later steps go on from; its target stays the true block, so it learns to mend
what it got wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

from swiftdiff.models.shapes.trainer import Plan
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import CacheConfig, SamplerConfig
from swiftdiff.world.sampling import make_schedule

from .clips import Clips, make_clips

#: `batch_size` counts blocks
FORCED_PLAN = Plan("transformer", steps=40_000, batch_size=28, learning_rate=2e-3)
OWN_PLAN = Plan("transformer-own", steps=20_000, batch_size=28, learning_rate=7e-4)

_FIRST_LEVEL_SHARE = 0.4
#: blocks of a clip, up to which share of stage 2. Beginnings come first, alone: rotary positions are
#: relative, and in a clip's first block, which is noise, the model must find out where a token stands. Alone
#: that took 200 steps to learn; among blocks with a past, which are easier, it had not begun by then. The
#: longest have one block that sees all of the engine's own window: one past block more than a model was
#: trained with, and balls were lost.
_LENGTHS = ((0.15, 1), (0.5, 3), (1.0, 7))
_WINDOWS = (2, 3, 6)
_PAST_NOISE = 0.25
_OWN_SHARE = 0.5


class ForcedTask:
    """Predict every block's flow from the true past."""

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        vae: AutoencoderKLWan,
        device: torch.device,
        *,
        is_trained: bool = False,
    ) -> None:
        """Make the task; a transformer that is trained already begins with the longest clips."""
        self._transformer = transformer.to(device)
        self._causal = CausalWan(self._transformer)
        self._vae = vae.to(device).requires_grad_(False)
        self._device = device
        self._is_trained = is_trained
        self._sigmas = torch.tensor(make_schedule(SamplerConfig()).sigmas[:-1], device=device)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return {"transformer": self._transformer}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch of `batch_size` blocks."""
        clips, blocks = self._clips(rng, batch_size, fraction)
        noise, past, window = self._noise(rng, clips), self._roughen(rng, clips.past, blocks), _window(rng)
        sigmas = self._draw_sigmas(rng, clips)
        return self._flow_loss(clips, past, clips.latents, noise, sigmas, window)

    def _clips(self, rng: np.random.Generator, batch_size: int, fraction: float) -> tuple[Clips, int]:
        place = 1.0 if self._is_trained else fraction
        blocks = next(blocks for until, blocks in _LENGTHS if place <= until)
        return make_clips(rng, max(1, batch_size // blocks), blocks, self._vae), blocks

    def _noise(self, rng: np.random.Generator, clips: Clips) -> Tensor:
        return torch.from_numpy(rng.standard_normal(tuple(clips.latents.shape), np.float32)).to(self._device)

    def _roughen(self, rng: np.random.Generator, latents: Tensor, blocks: int) -> Tensor:
        """Return the past with noise, of its own strength in each block; mostly little."""
        strength = _PAST_NOISE * rng.random((len(latents), blocks), np.float32) ** 2
        noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), np.float32)).to(self._device)
        return latents + _per_block(torch.from_numpy(strength).to(self._device), latents) * noise

    def _draw_sigmas(self, rng: np.random.Generator, clips: Clips) -> Tensor:
        """Return a noise level for each block, [B, blocks]."""
        others = len(self._sigmas) - 1
        shares = [_FIRST_LEVEL_SHARE] + [(1 - _FIRST_LEVEL_SHARE) / others] * others
        levels = rng.choice(len(shares), size=tuple(clips.counts.shape), p=shares)
        return self._sigmas[torch.from_numpy(levels).to(self._device)]

    def _flow_loss(  # noqa: PLR0917
        self,
        clips: Clips,
        past: Tensor,
        begun: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        window: CacheConfig,
    ) -> Tensor:
        """Squared error of the flow that leads to the true block, from `begun` noised to `sigmas`."""
        level = _per_block(sigmas, noise)
        noisy = (1 - level) * begun + level * noise
        target = (noisy - clips.latents) / level
        flow = self._causal.teacher_forced(past, noisy, sigmas * 1000, clips.prompts, window)
        error = (flow - target).square().mean((1, 3, 4)).reshape(*sigmas.shape, -1).mean(2)
        loss: Tensor = (error * clips.counts).sum() / clips.counts.sum().clamp(min=1)
        return loss


class OwnTask(ForcedTask):
    """Predict the true blocks from a past, and from first guesses, of the model's own making."""

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch of `batch_size` blocks."""
        clips, blocks = self._clips(rng, batch_size, 1.0)
        past, window = self._roughen(rng, clips.past, blocks), _window(rng)
        guess = self._own(rng, clips, past, None, window)
        past = self._mix(rng, past, guess, clips)
        past = self._mix(rng, past, self._own(rng, clips, past, guess, window), clips)
        begun = self._mix(rng, clips.latents, guess, clips)
        return self._flow_loss(
            clips, past, begun, self._noise(rng, clips), self._draw_sigmas(rng, clips), window
        )

    @torch.no_grad()
    def _own(
        self, rng: np.random.Generator, clips: Clips, past: Tensor, guess: Tensor | None, window: CacheConfig
    ) -> Tensor:
        """Return blocks as the first step makes them, or as the last one makes them of a guess."""
        noise = self._noise(rng, clips)
        sigma = self._sigmas[0 if guess is None else -1]
        noisy = noise if guess is None else (1 - sigma) * guess + sigma * noise
        times = (sigma * 1000).expand(clips.counts.shape)
        return noisy - sigma * self._causal.teacher_forced(past, noisy, times, clips.prompts, window)

    def _mix(self, rng: np.random.Generator, true: Tensor, own: Tensor, clips: Clips) -> Tensor:
        """Return some blocks true and some of the model's own; those that it cannot know are true."""
        chosen = torch.from_numpy(rng.random(tuple(clips.counts.shape)) < _OWN_SHARE).to(self._device)
        is_own = _per_block(chosen & (clips.counts > 0), true)
        return torch.where(is_own, own, true)


def _per_block(values: Tensor, like: Tensor) -> Tensor:
    """Return values [B, blocks] in the shape of latents [B, 1, frames, 1, 1]."""
    frames = like.shape[2] // values.shape[1]
    return values.repeat_interleave(frames, dim=1)[:, None, :, None, None]


def _window(rng: np.random.Generator) -> CacheConfig:
    """Return how much of the past is seen, so that no one length is learnt by heart."""
    return CacheConfig(policy="window", window_blocks=int(rng.choice(_WINDOWS)))
