"""Owns what a world's measurements come to, whether it is enough, and what makes it doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from swiftdiff.telemetry.machine_load import MAX_IDLE_LOAD, MAX_OTHER_SHARE
from swiftdiff.world.bench.folder import BenchRow
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
from swiftdiff.world.drift.error import Drift
from swiftdiff.world.drift.run import DriftSummary, summarise_drift
from swiftdiff.world.presets import PRESETS

# What is asked for at least: of the clip's lengths at which it was first measured.
NEEDED_SPEEDUPS: Final = {7: 3.0, 14: 6.0}
_MAX_ERROR: Final = 1e-5
_MAX_SLOWDOWN: Final = 1.1
_MAX_INT8_BYTES: Final = 0.3
_MAX_OVERHEAD: Final = 0.01


@dataclass(frozen=True)
class Spread:
    """The median of the repeats, and the lowest and highest of them."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread; None of no values."""
        return cls(median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True)
class Finding:
    """One thing that was to be found out.

    Attributes:
        name: What, with its unit; a ratio has none.
        spread: What was measured; None if nothing was.
        limit: What it must reach or keep below; None asks for nothing.
        at_least: Whether the limit is the least, or the most.
    """

    name: str
    spread: Spread | None
    limit: float | None = None
    at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the median is within the limit; None without a limit or a measurement."""
        if self.limit is None or self.spread is None:
            return None
        return self.spread.median >= self.limit if self.at_least else self.spread.median <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return the fields, and whether it is met."""
        return asdict(self) | {"is_met": self.is_met}


@dataclass(frozen=True)
class WorldBenchResult:
    """A benchmark's numbers.

    Attributes:
        options: What was to be measured.
        environment: Machine and software.
        findings: In the order of the issue that asks for them.
        drifts: By way and metric; the ground truth's first.
        num_measured: Measurements on disk.
        complete: Whether nothing is missing.
        other_share: Cores that other processes kept busy: median and highest over the measurements.
    """

    options: WorldBenchOptions
    environment: dict[str, Any]
    findings: tuple[Finding, ...]
    drifts: tuple[DriftSummary, ...]
    num_measured: int
    complete: bool
    other_share: tuple[float, float]

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that pictures mean nothing."""
        return self.options.model in PRESETS

    @property
    def load_at_start(self) -> float:
        """The machine's load average before the benchmark, the highest of its sessions."""
        return max(float(session["load_1min"]) for session in self.environment["sessions"])

    @property
    def unmet(self) -> list[Finding]:
        """Findings that are outside their limit."""
        return [finding for finding in self.findings if finding.is_met is False]

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        return {
            "complete": self.complete,
            "options": self.options.model_dump(mode="json"),
            "random_weights": self.is_random,
            "load_1min_at_start": self.load_at_start,
            "other_processes_cores": {"median": self.other_share[0], "highest": self.other_share[1]},
            "num_measured": self.num_measured,
            "findings": [finding.to_json() for finding in self.findings],
            "drift": [drift.to_json() for drift in self.drifts],
        }


def compute_result(
    options: WorldBenchOptions, environment: dict[str, Any], rows: Sequence[BenchRow], *, complete: bool
) -> WorldBenchResult:
    """Compute a benchmark's numbers.

    Args:
        options: What was to be measured.
        environment: Machine and software.
        rows: One a key, in any order.
        complete: Whether all were measured.
    """
    table = _Rows(rows)
    shares = [row.other_cpu_s / row.seconds for row in rows if row.seconds > 0] or [0.0]
    return WorldBenchResult(
        options=options,
        environment=environment,
        findings=tuple(_findings(options, table)),
        drifts=tuple(_drifts(rows)),
        num_measured=len(rows),
        complete=complete,
        other_share=(median(shares), max(shares)),
    )


def doubts_of(result: WorldBenchResult) -> list[str]:
    """Return sentences on what makes the numbers doubtful, loudest first."""
    found = []
    typical, highest = result.other_share
    if result.load_at_start > MAX_IDLE_LOAD or typical > MAX_OTHER_SHARE:
        found.append(
            f"MACHINE NOT IDLE: load average {result.load_at_start:.2f} at the start, and other processes "
            f"kept {typical:.2f} cores busy at the median ({highest:.2f} at most). Times are worth little."
        )
    if not result.complete:
        found.append(f"INCOMPLETE: {result.num_measured} measurements so far.")
    if result.is_random:
        found.append(
            f"RANDOM WEIGHTS: {result.options.model} was never trained. Times, bytes and errors are those of "
            "a model of its size; drift says nothing but that it can be measured."
        )
    return found


class _Rows:
    """Measurements by what they measure."""

    def __init__(self, rows: Sequence[BenchRow]) -> None:
        self._rows = rows

    def numbers(self, part: Part, case: str, name: str) -> dict[int, float]:
        """Return one number of a case by repeat."""
        return {
            row.repeat: row.numbers[name]
            for row in self._rows
            if row.part == part and row.case == case and name in row.numbers
        }

    def spread(self, part: Part, case: str, name: str) -> Spread | None:
        """Return the spread of one number over the repeats."""
        return Spread.of([*self.numbers(part, case, name).values()])

    def ratio(self, above: tuple[Part, str, str], below: tuple[Part, str, str]) -> Spread | None:
        """Return the spread of two numbers' ratio, each within one repeat."""
        tops, bottoms = self.numbers(*above), self.numbers(*below)
        return Spread.of([tops[repeat] / bottoms[repeat] for repeat in tops if bottoms.get(repeat)])


def _findings(options: WorldBenchOptions, rows: _Rows) -> list[Finding]:
    speedups = [
        Finding(
            f"{name}, {blocks} blocks",
            rows.ratio(("speed", f"{way} {blocks}", "clip_s"), ("speed", f"{CACHE} {blocks}", "clip_s")),
            needed.get(blocks),
            at_least=True,
        )
        for way, name, needed in (
            (RECOMPUTE, "speed-up over recompute", NEEDED_SPEEDUPS),
            (RECOMPUTE_FAST, "speed-up at equal kernels", {}),
        )
        for blocks in options.clip_blocks
    ]
    return [
        Finding("cache vs recompute, largest error", rows.spread("parity", CACHE, "max_error"), _MAX_ERROR),
        Finding("… in float64", rows.spread("parity", FLOAT64, "max_error"), _MAX_ERROR),
        *speedups,
        *_window_findings(options, rows),
        *_int8_findings(rows),
        *_engine_findings(options, rows),
    ]


def _window_findings(options: WorldBenchOptions, rows: _Rows) -> list[Finding]:
    last = f"block {options.long_blocks}"
    grown = rows.ratio(("window", "window", "bytes_after"), ("window", "window", "bytes_before"))
    slowed = {
        policy: rows.ratio(("window", policy, "last_block_s"), ("window", policy, "first_full_block_s"))
        for policy in ("window", "full")
    }
    return [
        Finding(f"window: KV bytes, {last} / start", grown, 1.0),
        Finding(f"window: time, {last} / first full", slowed["window"], _MAX_SLOWDOWN),
        Finding(f"full: time, {last} / block {options.window_blocks + 1}", slowed["full"]),
    ]


def _int8_findings(rows: _Rows) -> list[Finding]:
    sizes, times = (rows.ratio(("int8", INT8, name), ("int8", NATIVE, name)) for name in ("bytes", "clip_s"))
    return [
        Finding("int8: KV bytes / native's", sizes, _MAX_INT8_BYTES),
        Finding("native: KV cache, MB", _scale(rows.spread("int8", NATIVE, "bytes"), 1e-6)),
        Finding("int8: KV cache, MB", _scale(rows.spread("int8", INT8, "bytes"), 1e-6)),
        Finding("int8: largest error of a prediction", rows.spread("int8", "error", "max_error")),
        Finding("int8: RMS of these errors", rows.spread("int8", "error", "rms_error")),
        Finding("RMS of these predictions", rows.spread("int8", "error", "scale")),
        Finding("int8: time / native's", times),
    ]


def _engine_findings(options: WorldBenchOptions, rows: _Rows) -> list[Finding]:
    blocks = options.longest_clip
    share = rows.ratio(("first-pixels", "stream", "first_pixels_s"), ("first-pixels", "stream", "clip_s"))
    counted = rows.spread("overhead", PROFILED, "counted_overhead_share")
    paired = rows.ratio(("overhead", PROFILED, "clip_s"), ("overhead", PLAIN, "clip_s"))
    shown = (("submit to first pixels, s", "first_pixels_s"), (f"clip of {blocks} blocks, s", "clip_s"))
    profiled = (
        ("a denoising step, s", "median_step_s"),
        ("commit pass, s", "median_commit_s"),
        ("decoding a block, s", "median_decode_s"),
        ("frames/s with decoding", "fps"),
        ("frames/s without decoding", "fps_without_decode"),
    )
    return [
        Finding(f"first pixels, × {blocks} / clip's time", _scale(share, blocks), 1.0),
        Finding("profiler: share of time, counted", counted, _MAX_OVERHEAD),
        Finding("profiler: time with / without", paired),
        *(Finding(name, rows.spread("first-pixels", "stream", number)) for name, number in shown),
        *(Finding(name, rows.spread("overhead", PROFILED, number)) for name, number in profiled),
    ]


def _scale(spread: Spread | None, by: float) -> Spread | None:
    if spread is None:
        return None
    return Spread(spread.median * by, spread.low * by, spread.high * by, spread.count)


def _drifts(rows: Sequence[BenchRow]) -> list[DriftSummary]:
    clips: dict[str, list[dict[str, Drift]]] = {}
    for row in rows:
        if row.part == "drift":
            values = {metric: Drift.of(series) for metric, series in row.series.items()}
            clips.setdefault(row.case, []).append(values)
    return [summary for way, drifts in clips.items() for summary in summarise_drift(way, drifts)]
