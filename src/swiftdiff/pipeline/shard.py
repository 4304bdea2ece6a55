"""Owns a shard: the rows of a request's batch that one lane computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftdiff.pipeline.job import DenoiseJob
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.split_unet import Prompt


@dataclass(frozen=True)
class Shard:
    """All pictures of a request, for one guidance half or both.

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
        return [Shard(lanes[0], _stack(job.negative_prompt, job.prompt), 2)]
    return [Shard(lanes[0], job.negative_prompt, 1), Shard(lanes[1], job.prompt, 1)]


def _stack(first: Prompt, second: Prompt) -> Prompt:
    def both(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return Prompt(
        torch.cat([first.embeddings, second.embeddings]),
        both(first.pooled, second.pooled),
        both(first.time_ids, second.time_ids),
    )
