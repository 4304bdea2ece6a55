"""Owns a shard: the rows of a batch that one lane computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swiftdiff.pipeline.job import DenoiseJob
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.split_unet import Prompt


@dataclass(frozen=True)
class Shard:
    """All pictures of a job, for one guidance half or both.

    Attributes:
        lane: Where its UNet is computed.
        prompt: Of its rows: the negative half's first if it has both.
        num_halves: Guidance halves in it, 1 or 2.
    """

    lane: Lane
    prompt: Prompt
    num_halves: int

    def expand(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents once for each half."""
        return torch.cat([latents] * self.num_halves) if self.num_halves > 1 else latents


def make_shards(job: DenoiseJob, placement: Placement) -> list[Shard]:
    """Split a request over the UNet's lanes; without guidance there is one shard."""
    lanes = placement.unet
    if job.negative_prompt is None or not job.is_guided:
        return [Shard(lanes[0], job.prompt, 1)]
    if len(lanes) == 1:
        return [Shard(lanes[0], stack_prompts([job.negative_prompt, job.prompt]), 2)]
    return [Shard(lanes[0], job.negative_prompt, 1), Shard(lanes[1], job.prompt, 1)]


def stack_prompts(prompts: Sequence[Prompt]) -> Prompt:
    """Return the rows of several prompts of one model, in their order."""
    if len(prompts) == 1:
        return prompts[0]
    pooled = [prompt.pooled for prompt in prompts if prompt.pooled is not None]
    time_ids = [prompt.time_ids for prompt in prompts if prompt.time_ids is not None]
    return Prompt(
        torch.cat([prompt.embeddings for prompt in prompts]),
        torch.cat(pooled) if pooled else None,
        torch.cat(time_ids) if time_ids else None,
    )
