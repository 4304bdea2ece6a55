"""Owns what all of a benchmark's measurements come to, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from swiftdiff.bench.cell import CellResult, compute_cell
from swiftdiff.bench.lineup import STOCK, SYSTEMS
from swiftdiff.bench.options import VIEWS, AnyView, BenchOptions
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.bench.thread_count import best_thread_count, seconds_by_threads
from swiftdiff.telemetry.machine_load import MAX_IDLE_LOAD, MAX_OTHER_SHARE


@dataclass(frozen=True)
class StageResult:
    """One model in one view.

    Attributes:
        model: The model's name.
        view: The view.
        stock_threads: Stock's threads.
        thread_seconds: Seconds by thread count that they were chosen by; empty if there was no choice.
        cells: By setting, and in each by system.
    """

    model: str
    view: AnyView
    stock_threads: int
    thread_seconds: dict[int, float]
    cells: tuple[CellResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for ``summary.json``."""
        return {
            "model": self.model,
            "view": self.view,
            "stock_threads": self.stock_threads,
            "stock_seconds_by_threads": self.thread_seconds,
            "results": [cell.to_json() for cell in self.cells],
        }


@dataclass(frozen=True)
class BenchResult:
    """A benchmark's numbers.

    Attributes:
        options: What was to be measured.
        environment: Machine and software.
        stages: Those with measurements.
        failures: What failed, and why, each reason once a system and setting.
        num_measured: Measurements on disk, failed ones too.
        complete: Whether nothing is missing.
        other_share: Cores that other processes kept busy: median and highest over the measurements.
    """

    options: BenchOptions
    environment: dict[str, Any]
    stages: tuple[StageResult, ...]
    failures: tuple[str, ...]
    num_measured: int
    complete: bool
    other_share: tuple[float, float]

    @property
    def load_at_start(self) -> float:
        """The machine's load average before the benchmark, the highest of its sessions."""
        return max(float(session["load_1min"]) for session in self.environment["sessions"])

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        return {
            "complete": self.complete,
            "options": self.options.model_dump(mode="json"),
            "load_1min_at_start": self.load_at_start,
            "other_processes_cores": {"median": self.other_share[0], "highest": self.other_share[1]},
            "num_measured": self.num_measured,
            "failures": list(self.failures),
            "stages": [stage.to_json() for stage in self.stages],
        }


def compute_results(
    options: BenchOptions,
    environment: dict[str, Any],
    measurements: Sequence[Measurement],
    folder: Path,
    *,
    complete: bool,
) -> BenchResult:
    """Compute a benchmark's numbers.

    Args:
        options: What was to be measured.
        environment: Machine and software.
        measurements: One a key, in any order.
        folder: That pictures' paths count from.
        complete: Whether all were made.
    """
    measured = [each for each in measurements if each.purpose == "measure"]
    stages = [
        _stage(model, view, measurements, folder)
        for model in dict.fromkeys(each.model for each in measured)
        for view in VIEWS
        if any(each.model == model and each.view == view for each in measured)
    ]
    failures: dict[str, int] = {}
    for each in measured:
        if each.error is not None:
            text = f"{each.model}, {each.view}, {each.setting} {each.system}: {each.error}"
            failures[text] = failures.get(text, 0) + 1
    shares = [each.other_share for each in measured if each.error is None] or [0.0]
    return BenchResult(
        options=options,
        environment=environment,
        stages=tuple(stages),
        failures=tuple(f"{text} ({count}×)" for text, count in failures.items()),
        num_measured=len(measured),
        complete=complete,
        other_share=(median(shares), max(shares)),
    )


@dataclass(frozen=True)
class Doubt:
    """Why numbers are worth less than they seem.

    Attributes:
        sentence: For the header.
        flag: For the title of every table; empty if the header is enough.
    """

    sentence: str
    flag: str = ""


def doubts_of(result: BenchResult) -> list[Doubt]:
    """Return what makes the numbers doubtful, loudest first; each flag once."""
    found = []
    typical, highest = result.other_share
    causes = []
    if result.load_at_start > MAX_IDLE_LOAD:
        causes.append(f"its load average was {result.load_at_start:.2f} at the start")
    if typical > MAX_OTHER_SHARE:
        causes.append(
            f"other processes kept {typical:.2f} cores busy while it measured (at most {highest:.2f})"
        )
    if causes:
        sentence = f"MACHINE NOT IDLE: {', and '.join(causes)}. These numbers are worth little."
        found.append(Doubt(sentence, "MACHINE NOT IDLE"))
    if not result.complete:
        found.append(Doubt(f"INCOMPLETE: {result.num_measured} measurements so far.", "INCOMPLETE"))
    if result.failures:
        found.append(Doubt(f"FAILURES: {len(result.failures)} kinds; they are at the end."))
    return found


def _stage(model: str, view: AnyView, measurements: Sequence[Measurement], folder: Path) -> StageResult:
    cells: dict[tuple[AdapterSetting, str], list[Measurement]] = {}
    for each in measurements:
        if (each.purpose, each.model, each.view, each.error) == ("measure", model, view, None):
            cells.setdefault((AdapterSetting.parse(each.setting), each.system), []).append(each)
    order = sorted(cells, key=lambda cell: (_place(cell[0], measurements), SYSTEMS.index(cell[1])))
    seconds = seconds_by_threads(model, measurements) if view == "same-hardware" else {}
    stock = [each for (_, system), group in cells.items() if system == STOCK for each in group]
    return StageResult(
        model=model,
        view=view,
        stock_threads=best_thread_count(seconds, default=stock[0].threads if stock else 0),
        thread_seconds=seconds,
        cells=tuple(
            compute_cell(setting, system, cells[setting, system], cells, folder) for setting, system in order
        ),
    )


def _place(setting: AdapterSetting, measurements: Sequence[Measurement]) -> int:
    names = list(dict.fromkeys(each.setting for each in measurements if each.purpose == "measure"))
    return names.index(setting.name)
