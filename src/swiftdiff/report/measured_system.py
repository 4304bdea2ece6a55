"""Reads what a system's runs recorded: one run, or repeats of it that are compared as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.report.adapters import waited_s
from swiftdiff.report.result import RunResult
from swiftdiff.report.run_report import read_result
from swiftdiff.report.summary import Summary, summarize

_TIMES = ("latency_s", "service_s", "restore_s", "lora_s")
_COLUMNS = (*_TIMES, "setting", "images")
_KEY = ["request_id", "repeat"]


@dataclass(frozen=True)
class MeasuredSystem:
    """One system's runs.

    Attributes:
        folder: Of the run, or of its repeats.
        runs: Folder and numbers of each repeat, by its number.
        result: Of all repeats together: latencies and stages over all their requests, rates as means over
            repeats.
        served: A row for each served request, by request id and repeat: seconds from arrival to delivery, of
            service, of restoring afterwards and of standing still for LoRAs (NaN without any); its number of
            ControlNets and LoRAs, such as ``1C/2L``; and the pictures' paths.
    """

    folder: Path
    runs: Mapping[int, tuple[RunFolder, RunResult]]
    result: RunResult
    served: pd.DataFrame


def find_runs(path: Path) -> dict[int, Path]:
    """Return the runs that a path stands for, by repeat: itself, or those of ``1/``, ``2/``, … that ended.

    Raises:
        ConfigError: There are none.
    """
    repeats = _repeats(path)
    if not repeats:
        kind = "is not there" if not path.exists() else "is not a run folder"
        raise ConfigError(
            f"{path} {kind}; make one with: swiftdiff replay TRACE --config CONFIG.toml --out DIR"
        )
    return dict(sorted(repeats.items()))


def find_systems(path: Path) -> list[Path]:
    """Return the folders of the systems that a path stands for: itself, or the folders of runs in it."""
    below = sorted(path.iterdir()) if path.is_dir() and not _repeats(path) else []
    return [each for each in below if _repeats(each)] or [path]


def _repeats(path: Path) -> dict[int, Path]:
    if (path / "run.json").is_file():
        return {1: path}
    ended = [each.parent for each in path.glob("*/summary.json")]
    return {int(each.name): each for each in ended if each.name.isascii() and each.name.isdecimal()}


def read_system(path: Path, repeats: Mapping[int, Path]) -> MeasuredSystem:
    """Read a system's runs.

    Args:
        path: What `find_runs` was asked about.
        repeats: What it said.

    Raises:
        StorageError: A folder is damaged.
    """
    folders = {number: RunFolder.open(each) for number, each in repeats.items()}
    runs = {number: (folder, read_result(folder)) for number, folder in folders.items()}
    result = _pool(list(folders.values()), [result for _, result in runs.values()])
    return MeasuredSystem(path, runs, result, _read_served(folders))


def _pool(folders: Sequence[RunFolder], results: Sequence[RunResult]) -> RunResult:
    first = results[0]
    if len(results) == 1:
        return first
    summaries = [result.summary for result in results]
    pooled = summarize(record for folder in folders for record in folder.read_records())
    # Clocks start anew in each repeat, so what is over time is not of all records at once.
    rates = ("duration", "request_throughput", "images_per_s", "request_goodput")
    summary = pooled.model_copy(update={name: _mean(name, summaries) for name in rates})
    num_requests = sum(result.info.num_requests for result in results)
    sessions = tuple(session for result in results for session in result.sessions)
    return RunResult(first.info.model_copy(update={"num_requests": num_requests}), sessions, summary)


def _mean(name: str, summaries: Iterable[Summary]) -> float | None:
    values = [value for summary in summaries if (value := getattr(summary, name)) is not None]
    return sum(values) / len(values) if values else None


def _read_served(folders: Mapping[int, RunFolder]) -> pd.DataFrame:
    rows: dict[tuple[str, int], tuple[Any, ...]] = {}
    for number, folder in folders.items():
        for record in folder.read_records():
            if record.warmup or record.status != "ok":
                continue
            key = (record.request_id, number)
            if key in rows:
                raise StorageError(f"{folder.records_path} has two records of request {record.request_id}")
            rows[key] = (
                record.latency_s,
                record.latency_s - record.queue_wait_s,
                record.stages.get("restore", 0.0),
                waited_s(record, "lora") if record.loras else None,
                f"{len(record.controlnets)}C/{len(record.loras)}L",
                record.images,
            )
    index = pd.MultiIndex.from_tuples(list(rows), names=_KEY) if rows else _empty_index()
    frame = pd.DataFrame(list(rows.values()), index=index, columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(_TIMES, float))


def _empty_index() -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([[], []], names=_KEY)
