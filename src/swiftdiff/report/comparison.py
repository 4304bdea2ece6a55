"""Owns what several runs of one trace come to side by side: paired by request, against one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.report.adapters import waited_s
from swiftdiff.report.comparability import RunSetting, find_caveats, find_obstacles, read_setting
from swiftdiff.report.picture_difference import PictureComparison, compare_pictures
from swiftdiff.report.result import RunResult
from swiftdiff.report.run_report import read_result
from swiftdiff.report.summary import Statistics, describe

BASELINE_ENGINE = "diffusers"
EXACT_MAX_LEVELS = 1  # what float rounding of a reordered sum may change in a picture, in levels of 255
_COLUMNS = ("latency_s", "service_s", "restore_s", "lora_s", "images")


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the baseline a quantity is, over the requests that both served.

    Attributes:
        mean: Ratio of the means, baseline's over this run's.
        median: Ratio of the medians.
        paired: Median of the requests' own ratios.
    """

    mean: float | None
    median: float | None
    paired: float | None


@dataclass(frozen=True)
class ComparedRun:
    """A run beside others.

    Attributes:
        label: How tables call it, unique.
        folder: The run's.
        result: The run and its own numbers.
        served: A row for each served request, by request id: seconds from arrival to delivery, of service, of
            restoring afterwards and of standing still for LoRAs (NaN without any), and the pictures' paths.
        num_paired: Requests that this run and the baseline both served.
        latency_speedup: From arrival to delivery.
        service_speedup: From the start of service to delivery.
        occupied_speedup: From the start of service until the model is restored and the next can start.
        pictures: Against the baseline's; None for the baseline.
    """

    label: str
    folder: RunFolder
    result: RunResult
    served: pd.DataFrame
    num_paired: int
    latency_speedup: Speedup
    service_speedup: Speedup
    occupied_speedup: Speedup
    pictures: PictureComparison | None

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
    """Runs side by side.

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


@dataclass(frozen=True)
class _Read:
    folder: RunFolder
    setting: RunSetting
    served: pd.DataFrame


def compare_runs(paths: Sequence[Path], *, baseline: str | None = None, force: bool = False) -> Comparison:
    """Compare runs that are on disk.

    Args:
        paths: Folders of at least two runs.
        baseline: Label, system or folder name of the one to measure against; None is the first with the
            engine ``diffusers``, or else the first.
        force: Compare also runs that differ in more than their system, or are incomplete.

    Raises:
        ConfigError: There are fewer than two, the baseline is not among them, or they should not be compared.
        StorageError: A folder is no run's, or is damaged.
    """
    folders = _open_folders(paths)
    results = [read_result(folder) for folder in folders]
    labels = _make_labels(folders, results)
    settings = [
        read_setting(label, folder, result)
        for label, result, folder in zip(labels, results, folders, strict=True)
    ]
    obstacles = find_obstacles(settings)
    if obstacles and not force:
        raise ConfigError(
            f"these runs should not be compared: {'. '.join(obstacles)}. --force compares them nevertheless"
        )
    reads = [
        _Read(folder, setting, _read_served(folder))
        for folder, setting in zip(folders, settings, strict=True)
    ]
    first = reads.pop(_find_baseline(reads, baseline))
    runs = (_compare(first, first), *(_compare(each, first) for each in reads))
    caveats = (*find_caveats(settings), *_pairing_caveats(runs), *_picture_caveats(runs))
    return Comparison(runs, tuple(obstacles), caveats)


def _open_folders(paths: Sequence[Path]) -> list[RunFolder]:
    if len(paths) < 2:
        raise ConfigError("name at least two run folders: swiftdiff compare RUN RUN")
    for index, path in enumerate(paths):
        if not (path / "run.json").is_file():
            kind = "is not there" if not path.exists() else "is not a run folder"
            raise ConfigError(
                f"{path} {kind}; make one with: swiftdiff replay TRACE --config CONFIG.toml --out DIR"
            )
        if path.resolve() in {earlier.resolve() for earlier in paths[:index]}:
            raise ConfigError(f"{path} is named twice; name each run once")
    return [RunFolder.open(path) for path in paths]


def _make_labels(folders: Sequence[RunFolder], results: Sequence[RunResult]) -> list[str]:
    """Return the systems' names, or where two are the same the folders' names or paths."""
    systems = [result.info.system for result in results]
    names = [folder.path.resolve().name for folder in folders]
    for labels in (systems, names):
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder.path) for folder in folders]


def _find_baseline(reads: Sequence[_Read], wanted: str | None) -> int:
    if wanted is None:
        engines = [each.setting.result.info.engine for each in reads]
        return engines.index(BASELINE_ENGINE) if BASELINE_ENGINE in engines else 0
    for names in (
        [each.setting.label for each in reads],
        [each.folder.path.resolve().name for each in reads],
        [each.setting.result.info.system for each in reads],
    ):
        if names.count(wanted) == 1:
            return names.index(wanted)
    allowed = "one of " + ", ".join(each.setting.label for each in reads)
    raise ConfigError.for_field("--baseline", wanted, allowed)


def _read_served(folder: RunFolder) -> pd.DataFrame:
    rows: dict[str, tuple[Any, ...]] = {}
    for record in folder.read_records():
        if record.warmup or record.status != "ok":
            continue
        if record.request_id in rows:
            raise StorageError(f"{folder.records_path} has two records of request {record.request_id}")
        rows[record.request_id] = (
            record.latency_s,
            record.latency_s - record.queue_wait_s,
            record.stages.get("restore", 0.0),
            waited_s(record, "lora") if record.loras else None,
            record.images,
        )
    frame = pd.DataFrame(list(rows.values()), index=list(rows), columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(_COLUMNS[:-1], float))


def _compare(run: _Read, baseline: _Read) -> ComparedRun:
    paired = baseline.served.add_suffix("_before").join(run.served.add_suffix("_after"), how="inner")
    is_baseline = run is baseline

    def speedup(*columns: str) -> Speedup:
        before, after = (
            sum(paired[f"{column}_{side}"] for column in columns) for side in ("before", "after")
        )
        return _speedup(before, after)

    return ComparedRun(
        label=run.setting.label,
        folder=run.folder,
        result=run.setting.result,
        served=run.served,
        num_paired=len(paired),
        latency_speedup=speedup("latency_s"),
        service_speedup=speedup("service_s"),
        occupied_speedup=speedup("service_s", "restore_s"),
        pictures=None if is_baseline else compare_pictures(_picture_paths(paired, baseline, run)),
    )


def _speedup(before: pd.Series, after: pd.Series) -> Speedup:
    if not len(after) or not (after > 0).all():  # nothing to divide by
        return Speedup(None, None, None)
    return Speedup(
        mean=float(before.mean() / after.mean()),
        median=float(before.median() / after.median()),
        paired=float((before / after).median()),
    )


def _picture_paths(
    paired: pd.DataFrame, baseline: _Read, run: _Read
) -> Iterator[tuple[str, list[Path], list[Path]]]:
    for request_id, before, after in zip(
        paired.index, paired["images_before"], paired["images_after"], strict=True
    ):
        yield (
            str(request_id),
            [baseline.folder.path / name for name in before],
            [run.folder.path / name for name in after],
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
