"""Owns what a run's records say of a cache of noisy latents: who went on from one, and what that saved."""

from __future__ import annotations

import statistics

from pydantic import BaseModel, ConfigDict

from swiftdiff.request import RequestRecord


class LatentCacheUse(BaseModel):
    """How far the cache of a run helped the requests that were served.

    Attributes:
        hit_rate: Share of requests that went on from a similar prompt's latents.
        skipped_share: Share of all requests' steps that this saved.
        mean_similarity: Of the prompts of those that did; None without any.
    """

    model_config = ConfigDict(frozen=True)

    hit_rate: float
    skipped_share: float
    mean_similarity: float | None


class LatentCacheTally:
    """Collects what records say of the cache."""

    def __init__(self) -> None:
        self._similarities: list[float] = []
        self._requests = self._steps = self._skipped = 0

    def add(self, record: RequestRecord) -> None:
        """Count a request, if its system has such a cache and served it."""
        if record.latent_cache is None:
            return
        self._requests += 1
        self._steps += record.num_inference_steps
        if record.latent_cache.skipped_steps and record.latent_cache.similarity is not None:
            self._skipped += record.latent_cache.skipped_steps
            self._similarities.append(record.latent_cache.similarity)

    def summary(self) -> LatentCacheUse | None:
        """Return what it came to; None if no record told of a cache."""
        if not self._requests:
            return None
        return LatentCacheUse(
            hit_rate=len(self._similarities) / self._requests,
            skipped_share=self._skipped / self._steps,
            mean_similarity=statistics.fmean(self._similarities) if self._similarities else None,
        )
