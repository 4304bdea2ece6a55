"""Runs a world's benchmark, new or resumed: cases take turns, and each measurement is on disk at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.measuring import MeasuringObserver, SessionEnd
from swiftdiff.errors import StorageError, SwiftdiffError
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.machine_load import CpuWatch, load_1min
from swiftdiff.world.bench.folder import ENVIRONMENT, BenchRow, WorldBenchFolder
from swiftdiff.world.bench.options import WorldBenchOptions
from swiftdiff.world.bench.parts import Round, WorldBench, plan_rounds

if TYPE_CHECKING:
    from pathlib import Path

    from swiftdiff.world.loading import WorldModel


WorldBenchEnd = SessionEnd[WorldBenchFolder]


def start_bench(
    options: WorldBenchOptions, out: Path, *, argv: list[str], observer: MeasuringObserver | None = None
) -> WorldBenchEnd:
    """Measure into a new folder.

    Args:
        options: What is measured.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.

    Raises:
        SwiftdiffError: The options, the model or the folder cannot be used.
    """
    session = _describe_session()  # before the model is loaded, which is load too
    told = observer or MeasuringObserver()
    told.doing(f"loading {options.model}")
    bench = _load(options)
    folder = WorldBenchFolder.create(out, options)
    environment = describe_environment(argv) | {"sessions": [session]}
    folder.write_json(ENVIRONMENT, environment | bench.describe())
    return _run(folder, options, bench, told)


def resume_bench(path: Path, *, observer: MeasuringObserver | None = None) -> WorldBenchEnd:
    """Measure what is missing in a benchmark's folder.

    Raises:
        SwiftdiffError: The folder is none or is damaged, or the model cannot be loaded or is another one.
    """
    session = _describe_session()
    told = observer or MeasuringObserver()
    folder = WorldBenchFolder.open(path)
    options, environment = folder.read_options(), folder.read_json(ENVIRONMENT)
    told.doing(f"loading {options.model}")
    bench = _load(options)
    if any(environment.get(name) != value for name, value in bench.describe().items()):
        raise StorageError(f"{path} was begun with other weights of {options.model}: begin a new benchmark")
    sessions: list[Any] = [*environment["sessions"], session]
    folder.write_json(ENVIRONMENT, environment | {"sessions": sessions})
    return _run(folder, options, bench, told)


def run_rounds(
    bench: WorldBench,
    folder: WorldBenchFolder,
    rounds: Sequence[Round],
    interrupts: Interrupts,
    observer: MeasuringObserver,
) -> None:
    """Measure the rounds that are not whole on disk.

    Raises:
        SwiftdiffError: A case cannot be measured or written.
        KeyboardInterrupt: Ctrl-C; what was measured is on disk.
    """
    done = {row.key for row in folder.read_rows()}
    pending = [each for each in rounds if any((each.part, c, each.repeat) not in done for c in each.cases)]
    total = sum(len(each.cases) for each in rounds)
    left = sum(len(each.cases) for each in pending)
    seconds: dict[tuple[str, str], float] = {}
    if pending:
        observer.doing("warming up")
        bench.warm_up()
    for each in pending:
        for case in each.cases:
            observer.doing(f"{each.part}: {case}")
            row = _measure(bench, each, case)
            with interrupts.hold():
                folder.append(row)
            left -= 1
            seconds[each.part, case] = row.seconds
            observer.progressed(total - left, total, _left_s(pending[pending.index(each) :], seconds))


def _load(options: WorldBenchOptions) -> WorldBench:
    import torch

    from swiftdiff.world.loading import load_world

    torch.set_num_threads(options.threads)
    model: WorldModel = load_world(options.model, options.device)
    return WorldBench(model, options)


def _run(
    folder: WorldBenchFolder, options: WorldBenchOptions, bench: WorldBench, observer: MeasuringObserver
) -> WorldBenchEnd:
    rounds = plan_rounds(options, has_truth=bench.has_truth)
    try:
        with Interrupts() as interrupts:
            try:
                run_rounds(bench, folder, rounds, interrupts, observer)
            except SwiftdiffError as error:
                return WorldBenchEnd(folder, "stopped", error)
    except KeyboardInterrupt:
        return WorldBenchEnd(folder, "interrupted")
    return WorldBenchEnd(folder, "complete")


def _measure(bench: WorldBench, each: Round, case: str) -> BenchRow:
    started_at, load, watch, began = _now(), load_1min(), CpuWatch(), time.perf_counter()
    measured = bench.measure(each.part, case, each.repeat)
    return BenchRow(
        part=each.part,
        case=case,
        repeat=each.repeat,
        seconds=time.perf_counter() - began,
        numbers=measured.numbers,
        series=measured.series,
        started_at=started_at,
        load_1min=load,
        other_cpu_s=watch.other_s(0.0),
    )


def _left_s(pending: Sequence[Round], seconds: dict[tuple[str, str], float]) -> float | None:
    """Return about how long the rounds take; None while a case has never been measured."""
    cases = [(each.part, case) for each in pending[1:] for case in each.cases]
    known = [seconds[case] for case in cases if case in seconds]
    return None if not known else sum(known) / len(known) * len(cases)


def _describe_session() -> dict[str, Any]:
    return {"started_at": _now(), "load_1min": load_1min()}


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
