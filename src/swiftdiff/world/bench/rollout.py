"""Rolls clips out block by block without an engine: with a KV cache, and by computing the whole past anew.

All ways take the same noise and the same steps, so that what differs is where the past comes from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Protocol

import torch

from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kv_cache import BlockKVCache
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.sampling import block_noise, make_schedule

Prompts = tuple[torch.Tensor, torch.Tensor]  # of the first block and of all further ones


class Way(Protocol):
    """Where a prediction gets the past from."""

    def predict(self, latents: torch.Tensor, timestep: float, index: int) -> torch.Tensor:
        """Return the flow for block ``index``, [1, C, F, H, W]."""
        ...

    def commit(self, latents: torch.Tensor, index: int) -> None:
        """Make the clean block part of the past."""
        ...


class CachedWay:
    """The past's keys and values are kept.

    Args:
        causal: The model.
        prompts: Of the clip.
        cache: Empty.
    """

    def __init__(self, causal: CausalWan, prompts: Prompts, cache: BlockKVCache) -> None:
        self.cache = cache
        self._causal = causal
        self._prompts = prompts
        self._crosses = (CrossCache(), CrossCache())

    def predict(self, latents: torch.Tensor, timestep: float, index: int) -> torch.Tensor:
        """Return the flow; the model computes this block alone."""
        prompt, cross = self._of_block(index)
        return self._causal.predict(latents, timestep, prompt, self.cache, cross)

    def commit(self, latents: torch.Tensor, index: int) -> None:
        """Write the block into the cache: one more pass."""
        prompt, cross = self._of_block(index)
        self._causal.commit(latents, prompt, self.cache, cross)

    def _of_block(self, index: int) -> tuple[torch.Tensor, CrossCache]:
        which = min(index, 1)
        return self._prompts[which], self._crosses[which]


class RecomputedWay:
    """The model computes all blocks so far, in every step.

    Args:
        causal: The model.
        prompts: Of the clip.
    """

    def __init__(self, causal: CausalWan, prompts: Prompts) -> None:
        self._causal = causal
        self._prompts = prompts
        self._clean: list[torch.Tensor] = []

    def predict(self, latents: torch.Tensor, timestep: float, index: int) -> torch.Tensor:
        """Return the flow of the last block."""
        context = torch.cat(self._clean, dim=2) if self._clean else latents[:, :, :0]
        prompts = torch.stack([self._prompts[min(block, 1)] for block in range(index + 1)], dim=1)
        return self._causal.recompute(context, latents, timestep, prompts)

    def commit(self, latents: torch.Tensor, index: int) -> None:
        """Note the block; no pass is needed."""
        self._clean.append(latents)


@dataclass(frozen=True)
class Rolled:
    """A clip.

    Attributes:
        latents: Clean, of each block, [1, C, F, H, W].
        block_s: Seconds of each block: its steps and what makes it part of the past.
    """

    latents: tuple[torch.Tensor, ...]
    block_s: tuple[float, ...]


@dataclass(frozen=True)
class Compared:
    """How far two ways are apart.

    Attributes:
        errors: Of each block, the largest difference between the two predictions, over its steps.
        rms_error: Root of the mean square of all differences.
        scale: Root of the mean square of the first way's predictions.
    """

    errors: tuple[float, ...]
    rms_error: float
    scale: float


class Roller:
    """Makes clips of one model and one prompt.

    Args:
        model: On its device.
        prompt: Of the first block; further ones have the model's resting prompt, if it has one.
        seed: Of the noise.
    """

    def __init__(self, model: WorldModel, prompt: str, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._schedule = make_schedule(model.settings.sampler)
        resting = model.settings.resting_prompt
        later = prompt if resting is None else model.prompts.follow(prompt, resting)
        self._prompts: Prompts = (self._encode(prompt), self._encode(later))

    def cached(self, config: CacheConfig) -> CachedWay:
        """Return the way with an empty cache."""
        causal = self._model.causal
        return CachedWay(causal, self._prompts, causal.new_cache(self._model.settings.block_shape, config))

    def recomputed(self) -> RecomputedWay:
        """Return the way without one."""
        return RecomputedWay(self._model.causal, self._prompts)

    @torch.inference_mode()
    def roll(self, num_blocks: int, way: Way) -> Rolled:
        """Make a clip and time its blocks, decoding left out."""
        clean, seconds = [], []
        for index in range(num_blocks):
            latents, draws = self._noise(index)
            began = self._now()
            for step, timestep in enumerate(self._schedule.timesteps):
                flow = way.predict(latents, timestep, index)
                latents = self._advance(latents, flow, step, draws)
            way.commit(latents, index)
            seconds.append(self._now() - began)
            clean.append(latents)
        return Rolled(tuple(clean), tuple(seconds))

    @torch.inference_mode()
    def compare(self, num_blocks: int, way: Way, other: Way) -> Compared:
        """Make a clip one way and note how far each prediction is from the other way's.

        Both are given the same noisy and the same clean latents, so an error is that of one prediction and
        does not add up over the clip.
        """
        errors, squares, squared_errors = [], [], []
        for index in range(num_blocks):
            latents, draws = self._noise(index)
            worst = 0.0
            for step, timestep in enumerate(self._schedule.timesteps):
                flow = way.predict(latents, timestep, index).clone()
                different = other.predict(latents, timestep, index)
                worst = max(worst, float((flow - different).abs().max()))
                squared_errors.append(float((flow - different).float().square().mean()))
                squares.append(float(flow.float().square().mean()))
                latents = self._advance(latents, flow, step, draws)
            way.commit(latents, index)
            other.commit(latents, index)
            errors.append(worst)
        rms_error, scale = (mean(each) ** 0.5 for each in (squared_errors, squares))
        return Compared(tuple(errors), rms_error, scale)

    def _encode(self, text: str) -> torch.Tensor:
        causal = self._model.causal
        return self._model.prompts.encode(text).to(causal.device, causal.dtype)

    def _noise(self, index: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        schedule, causal = self._schedule, self._model.causal
        renoised = sum(schedule.needs_noise(step) for step in range(schedule.num_steps))
        draws = block_noise(self._seed, index, 1 + renoised, self._model.settings.block_shape)
        first, *rest = (draw.to(causal.device, causal.dtype) for draw in draws)
        return first, rest

    def _advance(
        self, latents: torch.Tensor, flow: torch.Tensor, step: int, draws: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        noise = None
        if self._schedule.needs_noise(step):
            noise = draws[sum(self._schedule.needs_noise(earlier) for earlier in range(step))]
        return self._schedule.step(latents, flow, step, noise)

    def _now(self) -> float:
        device = self._model.causal.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()
