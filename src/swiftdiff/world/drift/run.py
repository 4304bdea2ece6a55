"""Makes clips and measures their drift, the ground truth's own drift beside as the floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from swiftdiff.quality.statistics import Estimate, bootstrap_mean
from swiftdiff.world.config import CacheConfig, CachePolicy, WorldConfig
from swiftdiff.world.drift.error import Drift, Frames, Metric, measure_clip
from swiftdiff.world.drift.scenes import Scene, make_scene
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel

TRUTH: Final = "ground truth"
_FORMS: Final = ("linear", "log", "normalised")


@dataclass(frozen=True)
class DriftSummary:
    """The drift of one metric over several clips made one way.

    Attributes:
        way: The cache's policy, a clip's name, or `TRUTH`.
        metric: Its name; a proxy's says so.
        mean: Of the metric itself, over all chunks and clips.
        linear: The video drift error, mean with 95 % interval over clips; None if one clip's is infinite.
        log: The same with logarithmic weights.
        normalised: The same of the form that is always finite.
        num_infinite: Clips whose error is infinite, since M_1 is 0.
    """

    way: str
    metric: str
    mean: float
    linear: Estimate | None
    log: Estimate | None
    normalised: Estimate
    num_infinite: int

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, None for what is infinite."""
        forms = {name: getattr(self, name) for name in _FORMS}
        return {
            "way": self.way,
            "metric": self.metric,
            "mean": self.mean,
            "num_infinite": self.num_infinite,
            **{name: None if form is None else form.as_dict() for name, form in forms.items()},
        }


def summarise_drift(way: str, clips: Sequence[Mapping[str, Drift]]) -> list[DriftSummary]:
    """Return for each metric what several clips' drift comes to.

    Args:
        way: How they were made.
        clips: By metric; at least one, all with the same metrics.
    """
    summaries = []
    for metric in clips[0]:
        drifts = [clip[metric] for clip in clips]
        num_infinite = sum(math.isinf(drift.linear) for drift in drifts)
        is_finite = num_infinite == 0
        summaries.append(
            DriftSummary(
                way,
                metric,
                mean=float(np.mean([drift.values for drift in drifts])),
                linear=bootstrap_mean([drift.linear for drift in drifts]) if is_finite else None,
                log=bootstrap_mean([drift.log for drift in drifts]) if is_finite else None,
                normalised=bootstrap_mean([drift.normalised for drift in drifts]),
                num_infinite=num_infinite,
            )
        )
    return summaries


def make_clip(
    model: WorldModel,
    scene: Scene,
    cache: CacheConfig,
    num_blocks: int,
    *,
    threads: int | None = None,
    tell: Callable[[int], None] | None = None,
) -> Frames:
    """Return a clip as the engine makes it, uint8 [F, H, W, 3].

    Args:
        model: What makes it.
        scene: Its beginning.
        cache: What is kept of the past.
        num_blocks: Its length.
        threads: Intra-op threads.
        tell: Called with the number of blocks after each.

    Raises:
        SwiftdiffError: The clip cannot be made.
    """
    config = WorldConfig(model=model.name, cache=cache, threads=threads, max_sessions=1)
    frames = []
    with WorldEngine(model, config, profile=False) as engine:
        session = engine.open(scene.prompt, scene.seed)
        for number in range(num_blocks):
            frames.append(session.next_block().frames)
            if tell is not None:
                tell(number + 1)
    return np.concatenate(frames)


def measure_policies(
    model: WorldModel,
    policies: Sequence[CachePolicy],
    metrics: Mapping[str, Metric],
    *,
    num_blocks: int,
    num_seeds: int,
    seed: int = 0,
    window_blocks: int = 6,
    prompt: str | None = None,
    threads: int | None = None,
) -> Iterator[tuple[str, int, dict[str, Drift]]]:
    """Make a clip for each seed and policy, in turns, and yield (policy or `TRUTH`, seed, drift by metric).

    Raises:
        SwiftdiffError: A clip cannot be made or is too short.
    """
    for offset in range(num_seeds):
        scene = make_scene(model, seed + offset, num_blocks, prompt)
        if scene.truth is not None:
            yield TRUTH, scene.seed, measure_clip(scene.truth, metrics)
        for policy in policies:
            cache = drift_cache(policy, window_blocks, num_blocks)
            clip = make_clip(model, scene, cache, num_blocks, threads=threads)
            yield policy, scene.seed, measure_clip(clip, metrics)


def drift_cache(policy: CachePolicy, window_blocks: int, num_blocks: int) -> CacheConfig:
    """Return a cache for a clip of so many blocks."""
    return CacheConfig(policy=policy, window_blocks=window_blocks, max_blocks=num_blocks)
