"""Approximate caching as in Nirvana (arXiv 2312.04429): pictures go on from a similar prompt's noisy latents.

One of the SwiftDiffusion paper's baselines, and built as that measured it: on stock diffusers, everything
else as in `swiftdiff.systems.diffusers`. A request whose prompt is near enough to an earlier one's skips the
steps that the similarity allows. Requests are compared only if they ask for the same size, steps, guidance,
negative prompt, LoRAs and ControlNets, scales, windows and control images included: latents that were made
under other adapters would bring these adapters' content along. The paper knows no adapters.

Only requests that began with noise are kept, so that errors do not add up from picture to picture. What a hit
gives depends on what was served before, and on its own seed only where the scheduler adds noise: pictures are
reproducible for the same requests in the same order from the start of the process. A resumed run begins with
an empty cache.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from swiftdiff.config import ServingConfig
from swiftdiff.request import ImageRequest, LatentCacheRecord
from swiftdiff.systems.base import Exactness, Served
from swiftdiff.systems.diffusers import DiffusersSystem
from swiftdiff.systems.late_start import begin_at, late_windows
from swiftdiff.systems.latent_cache import LatentCache, Nearest
from swiftdiff.telemetry.stages import StageTimer

# What requests may differ in and yet go on from each other's latents.
_FREE = {"request_id": "-", "timestamp": 0.0, "prompt": "", "seed": 0, "num_images": 1, "slo_ms": None}


class NirvanaSystem(DiffusersSystem):
    """Serves requests one at a time with stock diffusers pipelines and a cache of latents.

    Raises:
        ModelError: The config's model is missing or damaged.
        AdapterError: Its adapter store cannot be opened.
    """

    exactness: Exactness = "approximate"

    def __init__(self, config: ServingConfig) -> None:
        super().__init__(config)
        self._cache = LatentCache(config.nirvana)
        self._embeds = "pooled_prompt_embeds" if config.nirvana.embedding == "pooled" else "prompt_embeds"
        self._nearest: Nearest | None = None

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        """Make a request's pictures; see `ServingSystem.serve`."""
        self._nearest = None
        served = super().serve(request, images_root)
        found = self._nearest
        record = LatentCacheRecord(
            similarity=None if found is None else found.similarity,
            skipped_steps=0 if found is None else found.step,
            cached_bytes=self._cache.used_bytes,
        )
        return replace(served, latent_cache=record)

    def _make_pictures(
        self, pipe: Any, request: ImageRequest, arguments: dict[str, Any], timer: StageTimer
    ) -> list[Image]:
        kind = request.model_copy(update=_FREE)
        num_steps = request.num_inference_steps
        with timer.stage("cache_search"):
            embedding = arguments[self._embeds].flatten()
            self._nearest = found = self._cache.find(kind, embedding, num_steps, request.num_images)
        if found is not None and found.latents is not None:
            scheduler = pipe.scheduler
            pipe.scheduler = begin_at(scheduler, found.step)
            uses = late_windows(request.controlnets, found.step, num_steps)
            late = arguments | {"latents": found.latents} | (self._control_weights(uses) if uses else {})
            try:
                return self._denoise_and_decode(pipe, request, late, timer)
            finally:
                pipe.scheduler = (
                    scheduler  # the pipeline may be the base's, whose kind the next request takes
                )
        kept: dict[int, torch.Tensor] = {}
        wanted = self._cache.steps_to_keep(num_steps)

        def keep(num_done: int, latents: torch.Tensor) -> None:
            if num_done in wanted:
                kept[num_done] = latents.to("cpu", copy=True)

        pictures = self._denoise_and_decode(pipe, request, arguments, timer, keep)
        self._cache.put(kind, embedding, kept)
        return pictures
