"""Measures a comparison, new or resumed: makes the runs in turns, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from swiftdiff.compare.folder import Attempt, CompareFolder
from swiftdiff.compare.observer import CompareObserver
from swiftdiff.compare.plan import ComparePlan
from swiftdiff.compare.run_process import Job, make_run
from swiftdiff.config import ServingConfig
from swiftdiff.engine.measuring import SessionEnd
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import Build
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.systems import build_system
from swiftdiff.telemetry.machine_load import MAX_IDLE_LOAD, CpuWatch, load_1min
from swiftdiff.trace import scan_trace

CompareEnd = SessionEnd[CompareFolder]


@dataclass
class Runner:
    """Makes runs of a comparison that are not there yet. A system that failed once is not tried again.

    Attributes:
        folder: The comparison's.
        plan: Its plan.
        argv: The command line, for the runs' ``environment.json``.
        observer: Is told how it goes.
        build: Makes the systems.
        lost: Systems that failed in this session.
    """

    folder: CompareFolder
    plan: ComparePlan
    argv: list[str]
    observer: CompareObserver
    build: Build
    lost: set[str] = field(default_factory=set)

    def run(self, system: ServingConfig, place: Path, options: ReplayOptions, what: str) -> bool:
        """Make a run unless it is finished; return whether it is then.

        Args:
            system: The system.
            place: The run's folder.
            options: How it replays the trace.
            what: The run, for the observer.

        Raises:
            StorageError: The comparison's folder cannot be written.
            KeyboardInterrupt: Ctrl-C; the run was stopped and is made anew when the comparison goes on.
        """
        if self.folder.is_finished(place):
            return True
        if system.name in self.lost:
            return False
        self.folder.clear(place)
        self.observer.running(what)
        started_at, load, watch = datetime.now().astimezone(), load_1min(), CpuWatch()
        began_s = time.perf_counter()
        job = Job(Path(self.plan.trace), system, options, place, self.argv)
        ended = make_run(job, self.build, lambda served: self.observer.served(what, served))
        self.folder.append(
            Attempt(
                system=system.name,
                place=str(place.relative_to(self.folder.path)),
                started_at=started_at.isoformat(timespec="seconds"),
                wall_s=time.perf_counter() - began_s,
                load_1min=load,
                other_cpu_s=watch.other_s(ended.cpu_s),
                outcome=ended.outcome,
                reason=ended.reason,
            )
        )
        if ended.outcome == "failed":
            self.lost.add(system.name)
            self.observer.noted(f"{what} failed: {ended.reason}")
        return ended.outcome == "complete"


Measure = Callable[[Runner], None]


def start_comparison(
    plan: ComparePlan,
    out: Path,
    measure: Measure,
    *,
    argv: list[str],
    observer: CompareObserver | None = None,
    build: Build | None = None,
) -> CompareEnd:
    """Measure into a new folder.

    Args:
        plan: What is measured; see `swiftdiff.compare.plan.check_systems`.
        out: The folder: not there yet, or empty.
        measure: Makes the plan's runs: `take_turns`, or `swiftdiff.compare.sweep.find_rates`.
        argv: The command line.
        observer: Is told how it goes.
        build: Makes the systems, in processes of their own.

    Raises:
        StorageError: The folder cannot be made.
    """
    folder = CompareFolder.create(out, plan)
    return _measure(Runner(folder, plan, argv, observer or CompareObserver(), build or build_system), measure)


def resume_comparison(
    path: Path,
    choose: Callable[[ComparePlan], Measure],
    *,
    argv: list[str],
    observer: CompareObserver | None = None,
    build: Build | None = None,
) -> CompareEnd:
    """Make the runs that are missing in a comparison's folder; finished ones are kept.

    Args:
        path: The folder.
        choose: Returns how a plan is measured.
        argv: The command line.
        observer: Is told how it goes.
        build: Makes the systems.

    Raises:
        SwiftdiffError: It is no comparison's folder, or the trace is not the same any more.
    """
    folder = CompareFolder.open(path)
    plan = folder.read_plan()
    if scan_trace(Path(plan.trace)).sha256 != plan.trace_sha256:
        raise ConfigError(f"{plan.trace} has changed since {path} was begun; start a new comparison")
    runner = Runner(folder, plan, argv, observer or CompareObserver(), build or build_system)
    return _measure(runner, choose(plan))


def take_turns(runner: Runner) -> None:
    """Make the runs of a plan: all systems in each repeat, in its order."""
    plan = runner.plan
    for repeat in range(1, plan.repeats + 1):
        for system in plan.turns(repeat):
            place = runner.folder.system_folder(system.name) / str(repeat)
            runner.run(system, place, plan.options, f"{system.name}, repeat {repeat} of {plan.repeats}")


def _measure(runner: Runner, measure: Measure) -> CompareEnd:
    load = load_1min()
    if load > MAX_IDLE_LOAD:
        runner.observer.noted(
            f"WARNING: the machine is not idle: its load average is {load:.2f}. Times measured now are worth "
            "little; the tables will say so."
        )
    try:
        measure(runner)
    except KeyboardInterrupt:
        return CompareEnd(runner.folder, "interrupted")
    except StorageError as error:
        return CompareEnd(runner.folder, "stopped", error)
    return CompareEnd(runner.folder, "complete")
