"""Owns what each part of a world's benchmark measures, one case at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.world.bench.options import (
    CACHE,
    FLOAT64,
    INT8,
    NATIVE,
    PLAIN,
    PROFILED,
    RECOMPUTE,
    RECOMPUTE_FAST,
    Part,
    WorldBenchOptions,
)
from swiftdiff.world.bench.rollout import Compared, Roller
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import CacheConfig, CachePolicy, WorldConfig
from swiftdiff.world.drift.error import measure_clip
from swiftdiff.world.drift.metrics import metrics_for
from swiftdiff.world.drift.run import TRUTH, drift_cache, make_clip
from swiftdiff.world.drift.scenes import make_scene
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.kv_cache import CacheShape
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.profile import summarise
from swiftdiff.world.session import Block

_ERROR = "error"
_STREAM = "stream"
_WAYS = (CACHE, RECOMPUTE, RECOMPUTE_FAST)
_POLICIES: tuple[CachePolicy, ...] = ("window", "full")


@dataclass(frozen=True)
class Round:
    """Cases that take turns: all of a round are measured in one session, or all again.

    Attributes:
        part: What is measured.
        repeat: Which one of the repeats, or of the seeds.
        cases: In the order in which they are measured.
    """

    part: Part
    repeat: int
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """What a case came to.

    Attributes:
        numbers: The name says the unit.
        series: The same by block or by chunk.
    """

    numbers: dict[str, float]
    series: dict[str, tuple[float, ...]] = field(default_factory=dict)


def plan_rounds(options: WorldBenchOptions, *, has_truth: bool) -> list[Round]:
    """Return all rounds: repeats outside, parts inside, and every other repeat backwards.

    Args:
        options: What is measured.
        has_truth: Whether it is known what clips should show.
    """
    lengths = options.clip_blocks
    timed: dict[Part, tuple[str, ...]] = {
        "speed": tuple(f"{way} {blocks}" for blocks in lengths for way in _WAYS),
        "window": _POLICIES,
        "int8": (NATIVE, INT8),
        "first-pixels": (_STREAM,),
        "overhead": (PROFILED, PLAIN),
    }
    rounds = [Round("parity", 0, (CACHE,)), Round("int8", -1, (_ERROR,))]
    for repeat in range(options.repeats):
        for part, cases in timed.items():
            rounds.append(Round(part, repeat, cases if repeat % 2 == 0 else cases[::-1]))
    ways = ((TRUTH,) if has_truth else ()) + options.drift_policies
    rounds += [Round("drift", number, ways) for number in range(options.drift_seeds)]
    # Last: what it allocates leaves memory in a state in which recomputing is 8 % faster than as torch comes.
    return [*rounds, Round("parity", 1, (FLOAT64,))]


class WorldBench:
    """Measures one model.

    Args:
        model: On its device.
        options: What is measured.

    Raises:
        SwiftdiffError: The prompt means nothing to the model.
    """

    def __init__(self, model: WorldModel, options: WorldBenchOptions) -> None:
        self._model = model
        self._options = options
        scene = make_scene(model, options.seed, options.longest_clip, options.prompt)
        self.has_truth = scene.truth is not None
        self._prompt = scene.prompt
        self._roller = Roller(model, scene.prompt, options.seed)
        fast = replace(model, causal=model.causal.with_kernels_of_cached_passes())
        self._fast_roller = Roller(fast, scene.prompt, options.seed)
        self._window = CacheConfig(policy="window", window_blocks=options.window_blocks)

    def describe(self) -> dict[str, Any]:
        """Return what the model is, for ``environment.json``."""
        causal = self._model.causal
        modules: dict[str, nn.Module] = {"transformer": causal.transformer, "vae": self._model.vae}
        about = {
            "parameters": sum(weights.numel() for weights in causal.transformer.parameters()),
            "tokens_per_block": CacheShape.of(self._model).tokens_per_block,
            "steps": len(self._model.settings.sampler.sigmas),
            "weights_sha256": weights_digest(modules),
        }
        return {"model": about}

    def warm_up(self) -> None:
        """Let libraries choose their kernels and threads start by what is not counted."""
        self._roller.roll(2, self._roller.cached(self._window))
        self._roller.roll(2, self._roller.recomputed())
        self._fast_roller.roll(2, self._fast_roller.recomputed())
        scene = make_scene(self._model, self._options.seed, 2, self._prompt)
        make_clip(self._model, scene, self._window, 2, threads=self._options.threads)

    def measure(self, part: Part, case: str, repeat: int) -> Measured:
        """Measure a case once.

        Raises:
            SwiftdiffError: It cannot be measured.
        """
        measures: dict[Part, Callable[[], Measured]] = {
            "parity": lambda: self._compare_with_recomputing(is_double=case == FLOAT64),
            "speed": lambda: self._time_clip(case),
            "window": lambda: self._time_blocks(next(policy for policy in _POLICIES if policy == case)),
            "int8": lambda: self._compare_int8() if case == _ERROR else self._time_dtype(case),
            "first-pixels": self._time_first_pixels,
            "overhead": lambda: self._time_profiled(is_profiled=case == PROFILED),
            "drift": lambda: self._measure_drift(case, repeat),
        }
        return measures[part]()

    def _compare_with_recomputing(self, *, is_double: bool) -> Measured:
        blocks, roller = self._options.longest_clip, self._roller
        whole = CacheConfig(policy="full", max_blocks=blocks)
        if is_double:
            causal = CausalWan(deepcopy(self._model.causal.transformer).double())
            roller = Roller(replace(self._model, causal=causal), self._prompt, self._options.seed)
        compared = roller.compare(blocks, roller.cached(whole), roller.recomputed())
        return _errors(compared)

    def _time_clip(self, case: str) -> Measured:
        way, blocks = case.split()
        whole = CacheConfig(policy="full", max_blocks=int(blocks))
        roller = self._fast_roller if way == RECOMPUTE_FAST else self._roller
        rolled = roller.roll(int(blocks), roller.cached(whole) if way == CACHE else roller.recomputed())
        return Measured({"clip_s": sum(rolled.block_s)}, {"block_s": rolled.block_s})

    def _time_blocks(self, policy: CachePolicy) -> Measured:
        blocks, window = self._options.long_blocks, self._options.window_blocks
        way = self._roller.cached(CacheConfig(policy=policy, window_blocks=window, max_blocks=blocks))
        bytes_before = way.cache.bytes
        rolled = self._roller.roll(blocks, way)
        first_full = min(window, blocks - 1)
        numbers = {
            "first_full_block_s": rolled.block_s[first_full],
            "last_block_s": rolled.block_s[-1],
            "bytes_before": float(bytes_before),
            "bytes_after": float(way.cache.bytes),
        }
        return Measured(numbers, {"block_s": rolled.block_s})

    def _time_dtype(self, dtype: str) -> Measured:
        config = self._window if dtype == NATIVE else self._window.model_copy(update={"dtype": INT8})
        way = self._roller.cached(config)
        rolled = self._roller.roll(self._options.longest_clip, way)
        return Measured(
            {"clip_s": sum(rolled.block_s), "bytes": way.cache.bytes}, {"block_s": rolled.block_s}
        )

    def _compare_int8(self) -> Measured:
        packed = self._roller.cached(self._window.model_copy(update={"dtype": INT8}))
        compared = self._roller.compare(self._options.longest_clip, self._roller.cached(self._window), packed)
        return _errors(compared)

    def _time_first_pixels(self) -> Measured:
        seconds, _ = self._run_engine(is_profiled=False)
        return Measured({"first_pixels_s": seconds[0], "clip_s": seconds[-1]}, {"shown_s": seconds})

    def _time_profiled(self, *, is_profiled: bool) -> Measured:
        seconds, blocks = self._run_engine(is_profiled=is_profiled)
        numbers = {"clip_s": seconds[-1]}
        if is_profiled:
            times = summarise(
                [(block.times, len(block.frames)) for block in blocks if block.times is not None]
            )
            numbers |= {
                "median_step_s": times.median_step_s,
                "median_commit_s": times.median_commit_s,
                "median_decode_s": times.median_decode_s,
                "fps": times.fps,
                "fps_without_decode": times.fps_without_decode,
                "counted_overhead_share": times.overhead_share,
            }
        return Measured(numbers)

    def _run_engine(self, *, is_profiled: bool) -> tuple[tuple[float, ...], list[Block]]:
        """Return the seconds from submitting a clip until each block's pixels were there, and the blocks."""
        options = self._options
        config = WorldConfig(
            model=self._model.name, cache=self._window, threads=options.threads, max_sessions=1
        )
        timeline = Timeline(enabled=is_profiled)
        blocks, seconds = [], []
        with WorldEngine(self._model, config, timeline=timeline, profile=is_profiled) as engine:
            began = time.perf_counter()
            session = engine.open(self._prompt, options.seed)
            for _ in range(options.longest_clip):
                blocks.append(session.next_block())
                seconds.append(time.perf_counter() - began)
        return tuple(seconds), blocks

    def _measure_drift(self, way: str, number: int) -> Measured:
        options = self._options
        scene = make_scene(self._model, options.seed + number, options.drift_blocks, options.prompt)
        if way == TRUTH:
            assert scene.truth is not None
            frames = scene.truth
        else:
            policy = next(policy for policy in options.drift_policies if policy == way)
            cache = drift_cache(policy, options.window_blocks, options.drift_blocks)
            frames = make_clip(self._model, scene, cache, options.drift_blocks, threads=options.threads)
        drifts = measure_clip(frames, metrics_for(self._model))
        return Measured({}, {metric: drift.values for metric, drift in drifts.items()})


def _errors(compared: Compared) -> Measured:
    worst = max(compared.errors)
    numbers = {"max_error": worst, "rms_error": compared.rms_error, "scale": compared.scale}
    return Measured(numbers, {"max_error": compared.errors})
