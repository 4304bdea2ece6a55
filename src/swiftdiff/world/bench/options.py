"""Owns what a world's benchmark measures: the file ``bench.json``, by which it is resumed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swiftdiff.validation import StrictModel
from swiftdiff.world.config import CachePolicy

Part = Literal["parity", "speed", "window", "int8", "first-pixels", "overhead", "drift"]

# Cases of the parts that compare two ways; those of the others are named after what they vary.
CACHE, RECOMPUTE = "cache", "recompute"
RECOMPUTE_FAST = "recompute-fast"  # by the kernels that passes with a cache run by
FLOAT64 = "float64"  # how far cache and recomputing are apart where next to nothing is rounded
NATIVE, INT8 = "native", "int8"
PROFILED, PLAIN = "profiled", "plain"


class WorldBenchOptions(StrictModel):
    """What is measured, and how often.

    Attributes:
        model: As in `WorldConfig`.
        prompt: What the clips begin with; None is a scene that the seed chooses, where the model has scenes.
        device: Where it runs.
        threads: Intra-op threads; one is fastest for a small model.
        repeats: Of each timed case; cases take turns.
        clip_blocks: Lengths at which cache and recomputing are compared.
        window_blocks: Past blocks that the window holds.
        long_blocks: Blocks of the clip whose last block's time is compared with that of the first block that
            sees a full window.
        drift_blocks: Blocks of each clip whose drift is measured.
        drift_seeds: Clips of each policy.
        drift_policies: What is kept of the past.
        seed: Of scenes and noise.
    """

    format: Literal[1] = 1
    model: Annotated[str, Field(min_length=1)] = "bounce"
    prompt: str | None = None
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    repeats: Annotated[int, Field(ge=1, le=1000)] = 8
    clip_blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1)] = (7, 14)
    window_blocks: Annotated[int, Field(ge=1, le=4096)] = 6
    long_blocks: Annotated[int, Field(ge=2, le=4096)] = 56
    drift_blocks: Annotated[int, Field(ge=1, le=4096)] = 40
    drift_seeds: Annotated[int, Field(ge=1, le=10_000)] = 5
    drift_policies: tuple[CachePolicy, ...] = ("full", "window", "window+sink")
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def longest_clip(self) -> int:
        """Blocks of the longest clip that is compared with recomputing."""
        return max(self.clip_blocks)
