"""Owns what a benchmark's measurements on GPUs come to, and what makes them doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdiff.bench.cell import CellResult, compute_cell
from swiftdiff.bench.counted_work import Work
from swiftdiff.bench.folder import ENVIRONMENT
from swiftdiff.bench.gpu_lineup import MOST_GPUS, Line, all_gpu_lines
from swiftdiff.bench.gpu_options import GpuBenchFolder, GpuBenchOptions
from swiftdiff.bench.gpu_session import WORK
from swiftdiff.bench.gpus import Clocks, describe_use_by_others, read_clocks
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.results import Doubt, StageResult
from swiftdiff.bench.settings import AdapterSetting

_MAX_CEILING_DRIFT = 0.05


@dataclass(frozen=True)
class GpuSystem:
    """What is known of one system besides its pictures.

    Attributes:
        name: The system's.
        build_s: To make the model where it computes.
        warm_up_s: The system's own warm-up, which captures graphs; None if it never started.
        first_s: First requests of each setting, of few steps: they load adapters, and capture and compile
            what is new.
        capture_s: Of warm-up and requests, what capturing, tracing and compiling graphs took; None if no
            request was served.
        captured: Graphs captured while requests were measured, all of whose shapes it had served before:
            those that a LoRA swap or chance made anew. None for systems that do not tell.
        host_bytes: Most resident memory of its process.
        device_bytes: Most memory on its GPUs, by GPU.
    """

    name: str
    build_s: float | None
    warm_up_s: float | None
    first_s: dict[str, float]
    capture_s: float | None
    captured: int | None
    host_bytes: int
    device_bytes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for ``summary.json``."""
        return {
            "system": self.name,
            "build_s": self.build_s,
            "warm_up_s": self.warm_up_s,
            "first_requests_s": self.first_s,
            "capture_s": self.capture_s,
            "graphs_captured_while_measured": self.captured,
            "peak_host_memory_bytes": self.host_bytes,
            "peak_device_memory_bytes": self.device_bytes,
        }


@dataclass(frozen=True)
class GpuBenchResult:
    """A benchmark's numbers.

    Attributes:
        options: What was to be measured.
        environment: Machine, software and sessions.
        stage: All systems in all settings with measurements.
        lines: The line-up that they are from.
        systems: What they cost besides.
        num_gpus: GPUs by system.
        work: Counted for one step and one decode; None if it cannot be.
        clocks: How fast the GPUs ran; None if nobody knows.
        failures: What failed, and why, each reason once a system and setting.
        num_measured: Measurements on disk, failed ones too.
        outcome: How the last session ended, as `GpuBenchEnd` has it.
        cut: What is left, in words; empty if nothing is.
    """

    options: GpuBenchOptions
    environment: dict[str, Any]
    stage: StageResult
    lines: tuple[Line, ...]
    systems: tuple[GpuSystem, ...]
    num_gpus: dict[str, int]
    work: Work | None
    clocks: Clocks | None
    failures: tuple[str, ...]
    num_measured: int
    outcome: str
    cut: str

    @property
    def gpu_name(self) -> str:
        """What the first GPU is called; ``CPU`` in a dry run."""
        found = self._ceilings("ceiling")
        return str(found[-1]["device"]) if found else "CPU" if self.options.dry_run else "GPU"

    @property
    def ceiling_tflops(self) -> float | None:
        """The highest matmul rate of all sessions; None if none was measured."""
        rates = [each["tflops"] for name in ("ceiling", "ceiling_after") for each in self._ceilings(name)]
        return max(rates, default=None)

    @property
    def ceiling_drift(self) -> float:
        """How much longer matmuls took after the worst session than before it, as a share."""
        pairs = [
            (session["ceiling"]["tflops"], session["ceiling_after"]["tflops"])
            for session in self.environment["sessions"]
            if "ceiling" in session and "ceiling_after" in session
        ]
        return max((before / after - 1 for before, after in pairs), default=0.0)

    def tflop_of(self, cell: CellResult) -> float | None:
        """Return the counted work of a cell's request; None for systems that leave some of it out."""
        if self.work is None or cell.exactness == "approximate":
            return None
        return self.work.request(cell.setting, self.options.steps)

    def share_of(self, cell: CellResult) -> float | None:
        """Return which share of its GPUs' ceiling a cell reached over the whole request; None if unknown."""
        tflop, ceiling = self.tflop_of(cell), self.ceiling_tflops
        if tflop is None or ceiling is None:
            return None
        return tflop / cell.seconds.median / (ceiling * max(1, self.num_gpus.get(cell.system, 1)))

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        cells = [
            cell.to_json() | {"counted_tflop": self.tflop_of(cell), "share_of_ceiling": self.share_of(cell)}
            for cell in self.stage.cells
        ]
        return {
            "dry_run": self.options.dry_run,
            "outcome": self.outcome,
            "left_out": self.cut,
            "options": self.options.model_dump(mode="json"),
            "gpu": self.gpu_name,
            "ceiling_tflops": self.ceiling_tflops,
            "clocks": self.clocks and self.clocks.to_json(),
            "num_measured": self.num_measured,
            "failures": list(self.failures),
            "results": cells,
            "systems": [system.to_json() for system in self.systems],
        }

    def _ceilings(self, name: str) -> list[dict[str, Any]]:
        return [session[name] for session in self.environment["sessions"] if name in session]


def read_gpu_result(folder: GpuBenchFolder, *, outcome: str, cut: str) -> GpuBenchResult:
    """Return what the measurements on disk come to.

    Args:
        folder: The benchmark's.
        outcome: How its last session ended.
        cut: What is left.

    Raises:
        StorageError: The folder is damaged.
    """
    options = folder.read_gpu_options()
    measurements = folder.read_measurements()
    measured = [each for each in measurements if each.purpose == "measure"]
    lines = _lines(options, {each.system for each in measured})
    names = [line.contender.name for line in lines]
    failures: dict[str, int] = {}
    for each in measured:
        if each.error is not None:
            text = f"{each.setting} {each.system}: {each.error}"
            failures[text] = failures.get(text, 0) + 1
    return GpuBenchResult(
        options=options,
        environment=folder.read_json(ENVIRONMENT),
        stage=StageResult(options.model, "gpu", 0, {}, _cells(measured, options, names, folder.path)),
        lines=tuple(lines),
        systems=tuple(_system(name, measurements) for name in names),
        num_gpus={line.contender.name: line.contender.num_gpus for line in lines},
        work=_work(folder),
        clocks=read_clocks(sorted(folder.path.glob("clocks-*.csv"))),
        failures=tuple(f"{text} ({count}×)" for text, count in failures.items()),
        num_measured=len(measured),
        outcome=outcome,
        cut=cut,
    )


def gpu_doubts(result: GpuBenchResult) -> list[Doubt]:
    """Return what makes the numbers doubtful, loudest first."""
    found = []
    if result.options.dry_run:
        found.append(
            Doubt("DRY RUN ON A CPU, to try the command: no number here says anything of a GPU.", "DRY RUN")
        )
    others = [describe_use_by_others(session["gpus"]) for session in result.environment["sessions"]]
    if any(others):
        sentence = f"GPU NOT IDLE at the start: {'; '.join(filter(None, others))}."
        found.append(Doubt(sentence, "GPU NOT IDLE"))
    seen = {
        tuple((gpu["name"], gpu["driver_version"]) for gpu in session["gpus"])
        for session in result.environment["sessions"]
    }
    if len(seen) > 1:
        sentence = "SESSIONS ON DIFFERENT GPUS or drivers: ratios between lines of two sessions mean nothing."
        found.append(Doubt(sentence, "DIFFERENT GPUS"))
    if result.ceiling_drift > _MAX_CEILING_DRIFT:
        what = "CPU" if result.options.dry_run else "GPU"
        sentence = f"The {what} slowed down: large matmuls took {result.ceiling_drift:.0%} longer at the end."
        found.append(Doubt(sentence, f"{what} SLOWED DOWN"))
    if result.outcome in ("interrupted", "stopped"):
        sentence = f"INCOMPLETE, {result.outcome}: {result.num_measured} measurements so far."
        found.append(Doubt(sentence, "INCOMPLETE"))
    if result.failures:
        found.append(Doubt(f"FAILURES: {len(result.failures)} kinds; they are at the end."))
    return found


def _lines(options: GpuBenchOptions, measured: set[str]) -> list[Line]:
    """Return the line-up's lines with measurements, whatever number of GPUs is there now."""
    lines: dict[str, Line] = {}
    for num_gpus in range(MOST_GPUS + 1):
        lines |= {line.contender.name: line for line in all_gpu_lines(options, num_gpus, ())}
    return [line for name, line in lines.items() if name in measured]


def _cells(
    measured: Sequence[Measurement], options: GpuBenchOptions, names: Sequence[str], folder: Path
) -> tuple[CellResult, ...]:
    cells: dict[tuple[AdapterSetting, str], list[Measurement]] = {}
    for each in measured:
        if each.error is None:
            cells.setdefault((AdapterSetting.parse(each.setting), each.system), []).append(each)
    return tuple(
        compute_cell(setting, name, cells[setting, name], cells, folder)
        for setting in options.adapter_settings
        for name in names
        if (setting, name) in cells
    )


def _system(name: str, measurements: Sequence[Measurement]) -> GpuSystem:
    own = [each for each in measurements if each.system == name]
    starts = [each.stages for each in own if each.purpose == "start"]
    first = {
        each.setting: each.total_s
        for each in own
        if each.purpose == "warmup" and each.repeat == 0 and each.total_s is not None
    }
    captures = [
        each.graphs_captured for each in own if each.purpose == "measure" and each.graphs_captured is not None
    ]
    peaks: dict[str, int] = {}
    for each in own:
        for device, num_bytes in each.peak_device_bytes.items():
            peaks[device] = max(peaks.get(device, 0), num_bytes)
    return GpuSystem(
        name=name,
        build_s=starts[-1].get("build") if starts else None,
        warm_up_s=starts[-1].get("warm_up") if starts else None,
        first_s=first,
        capture_s=max((each.capture_s for each in own if each.purpose != "start"), default=None),
        captured=sum(captures) if captures else None,
        host_bytes=max((each.peak_host_bytes for each in own), default=0),
        device_bytes=peaks,
    )


def _work(folder: GpuBenchFolder) -> Work | None:
    if not (folder.path / WORK).exists():
        return None
    values = folder.read_json(WORK)
    return Work(**values) if values else None
