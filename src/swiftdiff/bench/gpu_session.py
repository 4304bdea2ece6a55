"""Runs a benchmark on GPUs within some minutes, new or resumed; see `gpu_plan` for what comes first."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from swiftdiff.bench.ceiling import Ceiling, CeilingProcess
from swiftdiff.bench.counted_work import Work, count_work
from swiftdiff.bench.folder import ENVIRONMENT
from swiftdiff.bench.gpu_lineup import gpu_line_up, groups_of
from swiftdiff.bench.gpu_options import GpuBenchFolder, GpuBenchOptions
from swiftdiff.bench.gpu_plan import Costs, Unit, describe_cut, fit, next_unit, pending_units
from swiftdiff.bench.gpus import ClockLog, query_gpus, smallest_memory_bytes
from swiftdiff.bench.lineup import usable_cores
from swiftdiff.bench.order import take_turns
from swiftdiff.bench.requests import WARMUP_STEPS, ModelCase, prepare_model
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.bench.team import Stage, Team, now
from swiftdiff.bench.worker import Build, Preload
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.systems import build_system
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.machine_load import load_1min
from swiftdiff.trace.writer import write_trace

WORK = "work.json"
_ASLEEP_BYTES = 2 << 30  # of memory that should be there for each process
_RESERVE_S = 40.0  # for the ceiling afterwards and the report
_PATIENCE_S = 200.0  # with one system: more than any should take to compile, and not all of the minutes


class CeilingLike(Protocol):
    """A measurement of the ceiling that is under way."""

    def result(self) -> Ceiling:
        """Wait for it."""
        ...


@dataclass(frozen=True)
class Seams:
    """What tests replace.

    Attributes:
        build: Makes the systems, in processes of their own.
        ceiling: Begins to measure the ceiling of a device with a dtype.
        count_gpus: How many GPUs there are.
        count_work: Counts a model's work for pictures of a side.
        preload: Called in each process before it builds.
        clock: Seconds from any moment.
        patience_s: How long a system may take to start, or for one request.
    """

    build: Build
    ceiling: Callable[[str, str], CeilingLike]
    count_gpus: Callable[[], int]
    count_work: Callable[[str, int], Work | None]
    preload: Preload
    clock: Callable[[], float] = time.perf_counter
    patience_s: float = _PATIENCE_S


def _has_memory_for(num_processes: int) -> bool:
    """Whether all processes may sleep with their imports done; otherwise each starts when it is needed."""
    return int(psutil.virtual_memory().available) > num_processes * _ASLEEP_BYTES


def import_systems() -> None:
    """Import what systems do: in all processes at once, and not one after the other while a GPU waits."""
    with quiet_libraries():
        importlib.import_module("peft")
        importlib.import_module("swiftdiff.systems.diffusers")
        importlib.import_module("swiftdiff.systems.swiftdiff")


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


REAL = Seams(build_system, CeilingProcess, _count_gpus, count_work, import_systems)


@dataclass(frozen=True)
class GpuBenchEnd:
    """How a session ended.

    Attributes:
        folder: The benchmark's.
        outcome: ``complete``: all that was asked for is measured or has failed; ``cut``: the minutes were
            up; ``interrupted``: by Ctrl-C; ``stopped``: measurements could not be written.
        cut: What is left, in words; empty if nothing is.
        reason: Why it stopped, or None.
    """

    folder: GpuBenchFolder
    outcome: Literal["complete", "cut", "interrupted", "stopped"]
    cut: str = ""
    reason: StorageError | None = None


def start_gpu_bench(
    options: GpuBenchOptions,
    out: Path,
    *,
    argv: list[str],
    observer: MeasuringObserver | None = None,
    seams: Seams | None = None,
) -> GpuBenchEnd:
    """Run a benchmark into a new folder.

    Args:
        options: What is measured.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.
        seams: For tests.

    Raises:
        SwiftdiffError: There is no GPU, or the options, a model or the folder cannot be used.
    """
    bench = _GpuBench(options, observer or MeasuringObserver(), seams or REAL)
    folder = GpuBenchFolder.create(out, options)
    about = {"nvidia_smi": query_gpus(), "adapters_of": bench.lender, "sessions": []}
    folder.write_json(ENVIRONMENT, describe_environment(argv) | about)
    return bench.run(folder)


def resume_gpu_bench(
    path: Path, *, observer: MeasuringObserver | None = None, seams: Seams | None = None
) -> GpuBenchEnd:
    """Measure what is missing in a benchmark's folder, with as many minutes as the first session had.

    Raises:
        SwiftdiffError: The folder is no such benchmark's or is damaged, or there is no GPU.
    """
    folder = GpuBenchFolder.open(path)
    bench = _GpuBench(folder.read_gpu_options(), observer or MeasuringObserver(), seams or REAL)
    return bench.run(folder)


class _GpuBench:
    """A benchmark at work.

    Raises:
        SwiftdiffError: There is no GPU, or the options or the model cannot be used.
    """

    def __init__(self, options: GpuBenchOptions, observer: MeasuringObserver, seams: Seams) -> None:
        self._began_s = seams.clock()
        self.observer = observer
        self._options = options
        self._seams = seams
        num_gpus = 0 if options.dry_run else min(seams.count_gpus(), options.gpus or 10**6)
        if not num_gpus and not options.dry_run:
            raise ConfigError(
                "bench-gpu needs a CUDA GPU, and torch sees none here; --dry-run tries the same on the CPU"
            )
        gpu_line_up(options, num_gpus, ())  # whatever is wrong in the options is told first
        observer.doing(f"looking up {options.model} and its adapters")
        self._case: ModelCase = prepare_model(options.model, options.adapter_settings, may_borrow=True)
        lines = gpu_line_up(options, num_gpus, usable_cores(), self._case.borrowed_url)
        self._groups = groups_of(lines, smallest_memory_bytes(query_gpus()) if num_gpus else None)
        self._running: int | None = None
        self._total = len(self._rounds_left([]))

    @property
    def lender(self) -> str | None:
        """The preset whose adapters a model without any was given."""
        return self._case.lender

    def run(self, folder: GpuBenchFolder) -> GpuBenchEnd:
        """Measure what the folder has no record of and what the minutes allow."""
        self._folder = folder
        environment = folder.read_json(ENVIRONMENT)
        number = len(environment["sessions"]) + 1
        session: dict[str, Any] = {"started_at": now(), "load_1min": load_1min(), "gpus": query_gpus()}
        try:
            with Interrupts() as interrupts:
                self._interrupts = interrupts
                if self._units():
                    self._write_inputs()
                    with self._team() as team, ClockLog(folder.path / f"clocks-{number}.csv"):
                        session["ceiling"] = self._prepare(team).to_json()
                        self._note_session(environment, session)
                        self._measure(team)
                    self._measure_ceiling_again(session)
                    self._note_session(environment, session)
        except KeyboardInterrupt:
            return GpuBenchEnd(folder, "interrupted", self._describe_cut())
        except StorageError as error:
            return GpuBenchEnd(folder, "stopped", self._describe_cut(), error)
        cut = self._describe_cut()
        return GpuBenchEnd(folder, "cut" if cut else "complete", cut)

    def _write_inputs(self) -> None:
        options = self._options
        self._case.draw_controls(self._folder.path)
        requests = [
            self._case.request(setting, repeat, options.steps)
            for repeat in range(options.repeats)
            for setting in options.adapter_settings
        ]
        write_trace(self._folder.path / "requests.jsonl", requests)

    def _prepare(self, team: Team) -> Ceiling:
        """Let processes import, and measure the ceiling and count the work meanwhile."""
        self.observer.doing("starting processes, measuring the matmul ceiling")
        left = [self._groups[number] for number in sorted({unit.group for unit in self._units()})]
        all_left = [each for group in left for each in group]
        ahead = all_left if _has_memory_for(len(all_left)) else left[0]
        team.spawn(ahead, self._seams.build, self._seams.preload)
        under_way = self._ceiling()
        if not (self._folder.path / WORK).exists():
            work = self._seams.count_work(self._options.model, self._case.side)
            self._folder.write_json(WORK, {} if work is None else dataclasses.asdict(work))
        team.wait_preloaded()
        ceiling = under_way.result()
        rate = f"{ceiling.tflops:.3g} TFLOP/s"
        self.observer.noted(f"{ceiling.device}: {rate} in large {ceiling.dtype} matmuls")
        return ceiling

    def _measure(self, team: Team) -> None:
        """Measure unit after unit; what fits is found out anew after each."""
        told = False
        while True:
            measurements = self._folder.read_measurements()
            costs = Costs(measurements, self._options.warmups)
            units = self._units()
            chosen = fit(units, self._groups, costs, self._left_s(), self._running)
            unit = next_unit(chosen, self._running)
            if costs.known and not told:
                told = True
                self._tell_plan([each for each in units if each not in chosen])
            if unit is None:
                return
            self._start(team, unit.group)
            self._run_unit(team, unit, costs)

    def _tell_plan(self, left_out: list[Unit]) -> None:
        cut = describe_cut(left_out, self._groups, self._options.repeats)
        minutes = f"{self._options.minutes:g} minutes"
        self.observer.noted(
            f"{minutes} are not enough for all: {cut}" if cut else f"all of it fits into {minutes}"
        )

    def _start(self, team: Team, number: int) -> None:
        """End the group that runs, and start another one and warm it up."""
        if self._running == number:
            return
        self._stop(team)
        group = self._groups[number]
        names = ", ".join(each.name for each in group)
        self.observer.doing(f"starting {names}")
        team.spawn(group, self._seams.build, self._seams.preload)
        for problem in team.begin(group):
            self.observer.noted(f"error: {problem}")
        self._running = number
        steps = min(WARMUP_STEPS, self._options.steps)
        for count in range(self._options.warmups):
            for each in group:
                for setting in each.settings:
                    if self._left_s() <= 0:
                        return
                    self.observer.doing(f"warming up: {setting.name} {each.name}")
                    request = self._case.request(setting, self._options.repeats + count, steps)
                    team.serve(each, setting, request, count, "warmup")

    def _stop(self, team: Team) -> None:
        if self._running is not None:
            team.end(self._groups[self._running])
            self._running = None

    def _run_unit(self, team: Team, unit: Unit, costs: Costs) -> None:
        group = self._groups[unit.group]
        for turn, setting in enumerate(unit.settings):
            if self._left_s() < costs.round_s(group, setting):
                return
            contenders = [each for each in group if setting in each.settings]
            for contender in take_turns(contenders, unit.repeat + turn):
                self.observer.doing(f"{setting.name} {contender.name}, repeat {unit.repeat + 1}")
                request = self._case.request(setting, unit.repeat, self._options.steps)
                team.serve(contender, setting, request, unit.repeat, "measure")
            left = len(self._rounds_left(self._folder.read_measurements()))
            self.observer.progressed(self._total - left, self._total, max(0.0, self._left_s()))

    def _units(self) -> list[Unit]:
        return pending_units(self._groups, self._options.repeats, self._folder.read_measurements())

    def _rounds_left(self, measurements: list[Any]) -> list[tuple[int, int, AdapterSetting]]:
        units = pending_units(self._groups, self._options.repeats, measurements)
        return [(unit.group, unit.repeat, setting) for unit in units for setting in unit.settings]

    def _describe_cut(self) -> str:
        return describe_cut(self._units(), self._groups, self._options.repeats)

    def _left_s(self) -> float:
        return 60 * self._options.minutes - _RESERVE_S - (self._seams.clock() - self._began_s)

    def _ceiling(self) -> CeilingLike:
        return self._seams.ceiling(self._options.device, self._options.dtype)

    def _measure_ceiling_again(self, session: dict[str, Any]) -> None:
        self.observer.doing("measuring the matmul ceiling again")
        try:
            session["ceiling_after"] = self._ceiling().result().to_json()
        except ConfigError as error:  # all else is measured
            self.observer.noted(f"error: {error}")

    def _note_session(self, environment: dict[str, Any], session: dict[str, Any]) -> None:
        self._folder.write_json(ENVIRONMENT, environment | {"sessions": [*environment["sessions"], session]})

    @contextmanager
    def _team(self) -> Iterator[Team]:
        contenders = [each for group in self._groups for each in group]
        team = Team(
            Stage(self._case, "gpu"),
            contenders,
            self._folder,
            self._interrupts,
            patience_s=self._seams.patience_s,
        )
        try:
            yield team
        except BaseException:
            team.kill()
            raise
        team.close()
