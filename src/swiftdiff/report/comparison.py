"""Owns what systems' runs of one trace come to side by side: paired by request, against one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from swiftdiff.errors import ConfigError
from swiftdiff.quality.quality_report import EXACT_MAX_LEVELS
from swiftdiff.quality.statistics import Estimate, bootstrap_ratio
from swiftdiff.report.comparability import RunSetting, find_caveats, find_obstacles, read_setting
from swiftdiff.report.measured_system import MeasuredSystem, find_runs, read_system
from swiftdiff.report.picture_difference import PictureComparison, compare_pictures
from swiftdiff.report.result import RunResult
from swiftdiff.report.summary import Statistics, describe

BASELINE_ENGINE = "diffusers"


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the baseline a quantity is, over the requests that both served.

    Attributes:
        mean: Ratio of the means, baseline's over this run's.
        low: Lower end of its 95 % interval, see `swiftdiff.quality.statistics.bootstrap_ratio`.
        high: Upper end.
        median: Ratio of the medians.
        paired: Median of the requests' own ratios.
    """

    mean: float | None
    low: float | None
    high: float | None
    median: float | None
    paired: float | None


@dataclass(frozen=True)
class ComparedRun:
    """A system beside others.

    Attributes:
        label: How tables call it, unique.
        system: Its runs.
        config: Of its first run, as TOML.
        num_paired: Requests that it and the baseline both served, a repeat each.
        latency_speedup: From arrival to delivery.
        service_speedup: From the start of service to delivery.
        occupied_speedup: From the start of service until the model is restored and the next can start.
        pictures: Of the first repeat, against the baseline's; None for the baseline.
    """

    label: str
    system: MeasuredSystem
    config: dict[str, Any]
    num_paired: int
    latency_speedup: Speedup
    service_speedup: Speedup
    occupied_speedup: Speedup
    pictures: PictureComparison | None

    @property
    def folder(self) -> Path:
        """The run's folder, or that of its repeats."""
        return self.system.folder

    @property
    def result(self) -> RunResult:
        """All repeats' numbers together."""
        return self.system.result

    @property
    def served(self) -> pd.DataFrame:
        """A row for each served request, see `MeasuredSystem`."""
        return self.system.served

    @property
    def service(self) -> Statistics | None:
        """From the start of service to delivery, completed requests; None if there are none."""
        return describe(self.served["service_s"]) if len(self.served) else None

    @property
    def lora_wait_ms(self) -> float | None:
        """Mean time for which requests with LoRAs stood still for them; None if there are none."""
        waits = self.served["lora_s"].dropna()
        return describe(waits).mean if len(waits) else None


@dataclass(frozen=True)
class Comparison:
    """Systems side by side.

    Attributes:
        runs: The baseline first, then in the order in which they were named.
        obstacles: Why they should not be compared; empty unless that was forced.
        caveats: What a reader must know besides.
    """

    runs: tuple[ComparedRun, ...]
    obstacles: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def baseline(self) -> ComparedRun:
        """What the others are measured against."""
        return self.runs[0]

    @property
    def num_repeats(self) -> int:
        """Most repeats that any system has."""
        return max(len(run.system.runs) for run in self.runs)


@dataclass(frozen=True)
class _Read:
    system: MeasuredSystem
    settings: tuple[RunSetting, ...]

    @property
    def label(self) -> str:
        return self.settings[0].label


def compare_runs(paths: Sequence[Path], *, baseline: str | None = None, force: bool = False) -> Comparison:
    """Compare runs that are on disk.

    Args:
        paths: At least two, each the folder of a run, or of repeats that are called ``1``, ``2``, …
        baseline: Label, system or folder name of the one to measure against; None is the first with the
            engine ``diffusers``, or else the first.
        force: Compare also runs that differ in more than their system, or are incomplete.

    Raises:
        ConfigError: There are fewer than two, the baseline is not among them, or they should not be compared.
        StorageError: A folder is no run's, or is damaged.
    """
    reads = _read(_read_systems(paths))
    settings = [setting for each in reads for setting in each.settings]
    obstacles = find_obstacles(settings)
    if obstacles and not force:
        raise ConfigError(
            f"these runs should not be compared: {'. '.join(obstacles)}. --force compares them nevertheless"
        )
    first = reads.pop(_find_baseline(reads, baseline))
    runs = (_compare(first, first), *(_compare(each, first) for each in reads))
    caveats = (*find_caveats(settings), *_pairing_caveats(runs), *_picture_caveats(runs))
    return Comparison(runs, tuple(obstacles), caveats)


def _read_systems(paths: Sequence[Path]) -> list[MeasuredSystem]:
    if len(paths) < 2:
        raise ConfigError("name at least two run folders: swiftdiff compare RUN RUN")
    found = []
    for index, path in enumerate(paths):
        found.append((path, find_runs(path)))
        if path.resolve() in {earlier.resolve() for earlier in paths[:index]}:
            raise ConfigError(f"{path} is named twice; name each run once")
    return [read_system(path, runs) for path, runs in found]


def _read(systems: Sequence[MeasuredSystem]) -> list[_Read]:
    labels = _make_labels(systems)
    return [
        _Read(
            system,
            tuple(read_setting(label, folder, result) for folder, result in system.runs.values()),
        )
        for label, system in zip(labels, systems, strict=True)
    ]


def _make_labels(systems: Sequence[MeasuredSystem]) -> list[str]:
    """Return the systems' names, or where two are the same the folders' names or paths."""
    names = [system.result.info.system for system in systems]
    folders = [system.folder.resolve().name for system in systems]
    for labels in (names, folders):
        if len(set(labels)) == len(labels):
            return labels
    return [str(system.folder) for system in systems]


def _find_baseline(reads: Sequence[_Read], wanted: str | None) -> int:
    if wanted is None:
        engines = [each.system.result.info.engine for each in reads]
        return engines.index(BASELINE_ENGINE) if BASELINE_ENGINE in engines else 0
    for names in (
        [each.label for each in reads],
        [each.system.folder.resolve().name for each in reads],
        [each.system.result.info.system for each in reads],
    ):
        if names.count(wanted) == 1:
            return names.index(wanted)
    allowed = "one of " + ", ".join(each.label for each in reads)
    raise ConfigError.for_field("--baseline", wanted, allowed)


def _compare(run: _Read, baseline: _Read) -> ComparedRun:
    paired = pair(baseline.system, run.system)

    def speedup(*columns: str) -> Speedup:
        before, after = (
            sum(paired[f"{column}_{side}"] for column in columns) for side in ("before", "after")
        )
        return _speedup(before, after)

    return ComparedRun(
        label=run.label,
        system=run.system,
        config=run.settings[0].config,
        num_paired=len(paired),
        latency_speedup=speedup("latency_s"),
        service_speedup=speedup("service_s"),
        occupied_speedup=speedup("service_s", "restore_s"),
        pictures=None if run is baseline else compare_pictures(_picture_paths(paired, baseline, run)),
    )


def pair(baseline: MeasuredSystem, other: MeasuredSystem) -> pd.DataFrame:
    """Return a row a request and repeat that both served: their columns, ``_before`` and ``_after``."""
    return baseline.served.add_suffix("_before").join(other.served.add_suffix("_after"), how="inner")


def ratio_of_means(before: pd.Series, after: pd.Series) -> Estimate | None:
    """Return how many times the mean of ``after`` goes into that of ``before``, with its 95 % interval.

    Args:
        before: By request id and repeat, as `pair` gives it.
        after: Of the same requests.
    """
    tables = [side.unstack("repeat").to_numpy(float) for side in (before, after)]
    return bootstrap_ratio(*tables) if len(before) else None


def _speedup(before: pd.Series, after: pd.Series) -> Speedup:
    if not len(after) or not (after > 0).all():  # nothing to divide by
        return Speedup(None, None, None, None, None)
    ratio = ratio_of_means(before, after)
    assert ratio is not None  # times are above 0
    return Speedup(
        mean=ratio.value,
        low=ratio.low,
        high=ratio.high,
        median=float(before.median() / after.median()),
        paired=float((before / after).median()),
    )


def _picture_paths(
    paired: pd.DataFrame, baseline: _Read, run: _Read
) -> Iterator[tuple[str, list[Path], list[Path]]]:
    """Yield the pictures of the first repeat that both have: the others repeat their seeds."""
    first = min((number for _, number in paired.index), default=0)
    for (request_id, number), before, after in zip(
        paired.index, paired["images_before"], paired["images_after"], strict=True
    ):
        if number == first:
            folders = [each.system.runs[number][0].path for each in (baseline, run)]
            yield (
                str(request_id),
                [folders[0] / name for name in before],
                [folders[1] / name for name in after],
            )


def _pairing_caveats(runs: Sequence[ComparedRun]) -> Iterator[str]:
    served = len(runs[0].served)
    for run in runs[1:]:
        if run.num_paired < max(served, len(run.served)):
            yield (
                f"{run.label} and {runs[0].label} both served {run.num_paired} requests: speed-ups and "
                "picture differences are of these"
            )


def _picture_caveats(runs: Sequence[ComparedRun]) -> Iterator[str]:
    for run in runs[1:]:
        pictures = run.pictures
        if pictures is None:
            continue
        worst = pictures.worst
        if worst is not None and worst.max_abs > EXACT_MAX_LEVELS and run.result.info.exactness == "exact":
            yield (
                f"{run.label} is declared exact, but its pictures differ by up to {pictures.max_abs} levels "
                f"of 255, most in {worst.request_id}, picture {worst.index}"
            )
        if pictures.problems:
            more = len(pictures.problems) - 1
            yield f"not compared: {pictures.problems[0]}" + (f", and {more} more" if more else "")
