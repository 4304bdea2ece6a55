"""Owns the model as one session sees it: its caches, and guidance's two halves on one lane or on two."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from swiftdiff.pipeline.lane import Lane, LaneFuture
from swiftdiff.telemetry.timeline import Details
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kv_cache import BlockKVCache
from swiftdiff.world.profile import Profiler, Stretch
from swiftdiff.world.sampling import NoiseSchedule
from swiftdiff.world.steering import Prompt

# Under `keep`: prompts whose keys and values stay, so that going back to one computes nothing.
MAX_KEPT_PROMPTS = 8

Timed = tuple[torch.Tensor, Stretch]


class Half:
    """One half of guidance: its own past, which only its own passes read and write. Belongs to one lane.

    Args:
        causal: The model, shared.
        cache: Of this half.
        max_prompts: Prompts whose own keys and values are kept.
    """

    def __init__(self, causal: CausalWan, cache: BlockKVCache, max_prompts: int) -> None:
        self.cache = cache
        self._causal = causal
        self._max_prompts = max_prompts
        self._crosses: OrderedDict[str, CrossCache] = OrderedDict()

    def predict(self, latents: torch.Tensor, timestep: float, prompt: Prompt) -> torch.Tensor:
        """Return the flow for a block's noisy latents, [B, C, F, H, W], float32."""
        cross = self._cross(prompt)
        return self._causal.predict(latents, timestep, prompt.features, self.cache, cross).float()

    def commit(self, latents: torch.Tensor, prompt: Prompt) -> None:
        """Write a clean block into the cache."""
        self._causal.commit(latents, prompt.features, self.cache, self._cross(prompt))

    def _cross(self, prompt: Prompt) -> CrossCache:
        cross = self._crosses.pop(prompt.whole, None)
        if cross is None:
            while len(self._crosses) >= self._max_prompts:
                self._crosses.popitem(last=False)
            cross = self._causal.cross_cache(prompt.features)
        self._crosses[prompt.whole] = cross
        return cross


@dataclass(frozen=True)
class Commit:
    """A commit pass that lanes run, or will run.

    Attributes:
        first: Of the conditional half.
        second: Of the other half, if it has a lane of its own.
    """

    first: LaneFuture[Stretch]
    second: LaneFuture[None] | None

    def result(self) -> Stretch:
        """Wait for both halves.

        Raises:
            Exception: What one of them raised.
        """
        try:
            return self.first.result()
        finally:
            if self.second is not None:
                self.second.wait()

    def drop(self) -> None:
        """Leave out what has not begun, and wait for what has."""
        self.first.cancel()
        self.first.wait()
        if self.second is not None:
            self.second.cancel()
            self.second.wait()


class GuidedWorld:
    """A session's passes through the model.

    Args:
        halves: The conditional half and, with guidance, the unconditional one.
        null: The empty prompt, with guidance.
        guidance_scale: 1 is without guidance.
        lanes: One lane, or one for each half.
        schedule: Of a block.
        profiler: Is told what each pass took.
    """

    def __init__(
        self,
        halves: tuple[Half, ...],
        null: Prompt | None,
        guidance_scale: float,
        *,
        lanes: tuple[Lane, ...],
        schedule: NoiseSchedule,
        profiler: Profiler,
    ) -> None:
        self._conditional = halves[0]
        self._unconditional = None if null is None else (halves[1], null)
        self._scale = guidance_scale
        self._lanes = lanes
        self._schedule = schedule
        self._profiler = profiler
        self.cache_bytes = sum(half.cache.bytes for half in halves)

    def step(
        self, latents: torch.Tensor, step: int, prompt: Prompt, noise: torch.Tensor | None, about: Details
    ) -> LaneFuture[Timed]:
        """Start one denoising step; its result is the latents at the next noise level.

        Args:
            latents: [B, C, F, H, W], float32.
            step: Number of the step.
            prompt: Of the block.
            noise: Fresh, for steps that need it.
            about: What the timeline says of it.
        """
        timestep = self._schedule.timesteps[step]
        # The other half first: its lane computes while this lane does its own half, and they meet below.
        other = self._start_other(latents, timestep, about)

        def run(latents: torch.Tensor, noise: torch.Tensor | None) -> Timed:
            stretch = self._profiler.begin()
            flow = self._conditional.predict(latents, timestep, prompt)
            if self._unconditional is not None:
                half, null = self._unconditional
                empty = half.predict(latents, timestep, null) if other is None else other.result()
                flow = empty + self._scale * (flow - empty)
            advanced = self._schedule.step(latents, flow, step, noise)
            self._profiler.end(stretch, "world_step", about)
            return advanced, stretch

        return self._lanes[0].submit(run, latents, noise)

    def commit(self, latents: torch.Tensor, prompt: Prompt, about: Details) -> Commit:
        """Start the pass that writes a clean block into the caches."""
        other = self._unconditional
        second = None
        if other is not None and len(self._lanes) > 1:
            second = self._lanes[1].submit(self._commit_other, latents)

        def run(latents: torch.Tensor) -> Stretch:
            stretch = self._profiler.begin()
            self._conditional.commit(latents, prompt)
            if second is not None:
                second.result()
            elif other is not None:
                self._commit_other(latents)
            self._profiler.end(stretch, "world_commit", about)
            return stretch

        return Commit(self._lanes[0].submit(run, latents), second)

    def forget(self) -> None:
        """Empty the conditional half's past, to be written anew; the other half knows no prompt."""
        self._lanes[0].submit(self._conditional.cache.clear).result()

    def rewrite(self, latents: torch.Tensor, prompt: Prompt, about: Details) -> LaneFuture[Stretch]:
        """Start writing a block of the past anew, in the conditional half alone."""

        def run(latents: torch.Tensor) -> Stretch:
            stretch = self._profiler.begin()
            self._conditional.commit(latents, prompt)
            self._profiler.end(stretch, "world_recache", about)
            return stretch

        return self._lanes[0].submit(run, latents)

    def _start_other(
        self, latents: torch.Tensor, timestep: float, about: Details
    ) -> LaneFuture[torch.Tensor] | None:
        if self._unconditional is None or len(self._lanes) == 1:
            return None
        half, null = self._unconditional

        def run(latents: torch.Tensor) -> torch.Tensor:
            stretch = self._profiler.begin()
            flow = half.predict(latents, timestep, null)
            self._profiler.end(stretch, "world_step_unconditional", about)
            return flow

        return self._lanes[1].submit(run, latents)

    def _commit_other(self, latents: torch.Tensor) -> None:
        if self._unconditional is not None:
            half, null = self._unconditional
            half.commit(latents, null)
