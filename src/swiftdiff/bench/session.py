"""Runs a benchmark, new or resumed: starts systems, lets them take turns, writes down each measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from swiftdiff.bench.estimate import Cell, Estimate
from swiftdiff.bench.folder import ENVIRONMENT, BenchFolder
from swiftdiff.bench.lineup import Contender, check_options, line_up, stock_contender, usable_cores
from swiftdiff.bench.options import BenchOptions
from swiftdiff.bench.order import interleave, take_turns
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.requests import WARMUP_STEPS, prepare_model
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.bench.team import Stage, Team, now
from swiftdiff.bench.thread_count import (
    best_thread_count,
    seconds_by_threads,
    thread_candidates,
    thread_label,
)
from swiftdiff.bench.worker import Build
from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.measuring import MeasuringObserver, SessionEnd
from swiftdiff.errors import StorageError
from swiftdiff.systems import build_system
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.machine_load import MAX_IDLE_LOAD, load_1min
from swiftdiff.trace.writer import write_trace

_THREAD_STEPS = 8
_THREAD_REPEATS = 2


BenchEnd = SessionEnd[BenchFolder]


def start_bench(
    options: BenchOptions,
    out: Path,
    *,
    argv: list[str],
    observer: MeasuringObserver | None = None,
    build: Build | None = None,
) -> BenchEnd:
    """Run a benchmark into a new folder.

    Args:
        options: What is measured.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        observer: Is told how it goes.
        build: Makes the systems, in processes of their own.

    Raises:
        SwiftdiffError: The options, a model or the folder cannot be used.
    """
    bench = _Bench(options, observer or MeasuringObserver(), build or build_system)
    folder = BenchFolder.create(out, options)
    folder.write_json(ENVIRONMENT, describe_environment(argv) | {"sessions": [_describe_session()]})
    return bench.run(folder)


def resume_bench(
    path: Path, *, observer: MeasuringObserver | None = None, build: Build | None = None
) -> BenchEnd:
    """Measure what is missing in a benchmark's folder; a round that was cut off is measured anew.

    Raises:
        SwiftdiffError: The folder is no benchmark's or is damaged.
    """
    folder = BenchFolder.open(path)
    bench = _Bench(folder.read_options(), observer or MeasuringObserver(), build or build_system)
    environment = folder.read_json(ENVIRONMENT)
    sessions = [*environment["sessions"], _describe_session()]
    folder.write_json(ENVIRONMENT, environment | {"sessions": sessions})
    return bench.run(folder)


class _Bench:
    """A benchmark at work.

    Raises:
        SwiftdiffError: The options or a model cannot be used.
    """

    def __init__(self, options: BenchOptions, observer: MeasuringObserver, build: Build) -> None:
        self.cores = usable_cores()
        check_options(options, self.cores)
        self.observer = observer
        self._options = options
        self._build = build
        self._estimate = Estimate(options.steps)
        observer.doing("looking up models")
        cases = [prepare_model(model, options.adapter_settings) for model in dict.fromkeys(options.models)]
        views = tuple(dict.fromkeys(options.views))
        self._stages = [Stage(case, view) for case in cases for view in views]
        self._left: dict[Stage, list[Cell]] = {}
        self._not_started = set(self._stages)
        self._total = 0

    def run(self, folder: BenchFolder) -> BenchEnd:
        """Measure what the folder has no record of."""
        self._folder = folder
        load = load_1min()
        if load > MAX_IDLE_LOAD:
            self.observer.noted(
                f"WARNING: the machine is not idle: its load average is {load:.2f}. What is measured now is "
                "worth little; the tables will say so."
            )
        try:
            with Interrupts() as interrupts:
                self._interrupts = interrupts
                self._write_requests()
                self._count()
                for stage in self._stages:
                    if self._left[stage]:
                        self._run_stage(stage)
        except KeyboardInterrupt:
            return BenchEnd(folder, "interrupted")
        except StorageError as error:
            return BenchEnd(folder, "stopped", error)
        return BenchEnd(folder, "complete")

    def _write_requests(self) -> None:
        for case in {stage.case.model: stage.case for stage in self._stages}.values():
            case.draw_controls(self._folder.path)
            requests = [
                case.request(setting, repeat, self._options.steps)
                for repeat in range(self._options.repeats)
                for setting in self._options.adapter_settings
            ]
            write_trace(self._folder.path / f"requests-{case.slug}.jsonl", requests)

    def _count(self) -> None:
        """Find out what is left, and say about how long it will take."""
        recorded = {m.key for m in self._folder.read_measurements() if m.purpose == "measure"}
        for stage in self._stages:
            contenders = self._line_up(stage, threads=len(self.cores))
            self._left[stage] = [
                (stage.case.model, stage.view, setting, contender.name)
                for setting, repeat, names in self._rounds(contenders)
                if not _is_complete(stage, setting, repeat, names, recorded)
                for contender in names
            ]
            self._total += sum(len(names) for _, _, names in self._rounds(contenders))
        minutes = self._left_s() / 60
        self.observer.noted(
            f"{sum(map(len, self._left.values()))} measurements of {self._total} to make, "
            f"about {max(1, round(minutes))} min"
        )
        self._progress()

    def _rounds(
        self, contenders: Sequence[Contender]
    ) -> Iterator[tuple[AdapterSetting, int, list[Contender]]]:
        """Yield each (setting, repeat) with the systems that take turns in it, in their order."""
        settings = self._options.adapter_settings
        for repeat, turn, setting in interleave(self._options.repeats, settings):
            names = [each for each in contenders if setting in each.settings]
            yield setting, repeat, take_turns(names, turn)

    def _line_up(self, stage: Stage, threads: int) -> list[Contender]:
        return line_up(stage.case.model, stage.view, self._options, self.cores, threads)

    def _run_stage(self, stage: Stage) -> None:
        recorded = {m.key for m in self._folder.read_measurements() if m.purpose == "measure"}
        contenders = self._line_up(stage, self._stock_threads(stage))
        pending = [
            (setting, repeat, turns)
            for setting, repeat, turns in self._rounds(contenders)
            if not _is_complete(stage, setting, repeat, turns, recorded)
        ]
        with self._workers(stage, contenders) as team:
            self._warm_up(team)
            self._not_started.discard(stage)
            for setting, repeat, turns in pending:
                for contender in turns:
                    request = stage.case.request(setting, repeat, self._options.steps)
                    self.observer.doing(f"{stage.case.model}, {stage.view}: {setting.name} {contender.name}")
                    measured = team.serve(contender, setting, request, repeat, "measure")
                    self._note_measured(stage, (setting, contender), measured)

    def _note_measured(
        self, stage: Stage, cell: tuple[AdapterSetting, Contender], measured: Measurement
    ) -> None:
        key: Cell = (stage.case.model, stage.view, cell[0], cell[1].name)
        self._left[stage].remove(key)
        if measured.total_s is not None:
            self._estimate.learn(key, measured.total_s)
        self._progress()

    def _warm_up(self, team: Team) -> None:
        """Let each system serve each of its settings; not counted."""
        for number in range(self._options.warmups):
            for setting in sorted({each for contender in team.contenders for each in contender.settings}):
                for contender in team.contenders:
                    if setting in contender.settings:
                        self.observer.doing(f"warming up: {setting.name} {contender.name}")
                        steps = min(WARMUP_STEPS, self._options.steps)
                        request = team.stage.case.request(setting, self._options.repeats + number, steps)
                        team.serve(contender, setting, request, number, "warmup")

    def _stock_threads(self, stage: Stage) -> int:
        """Return stock's best thread count, measured unless an earlier session did."""
        candidates = thread_candidates(len(self.cores))
        if stage.view == "one-core" or len(candidates) == 1:
            return 1
        settings = _thread_settings(self._options.adapter_settings)
        names = [thread_label(count) for count in candidates]
        known = self._folder.read_measurements()
        done = {m.key for m in known if m.purpose == "threads"}
        wanted = {
            (stage.case.model, stage.view, setting.name, name, repeat)
            for setting in settings
            for name in names
            for repeat in range(_THREAD_REPEATS)
        }
        if not wanted <= done:
            self._measure_threads(stage, candidates, settings)
        seconds = seconds_by_threads(stage.case.model, self._folder.read_measurements())
        return best_thread_count(seconds, default=candidates[-1])

    def _measure_threads(
        self, stage: Stage, candidates: Sequence[int], settings: tuple[AdapterSetting, ...]
    ) -> None:
        contenders = []
        for count in candidates:
            stock = stock_contender(stage.case.model, stage.view, self._options, self.cores, count)
            contenders.append(Contender(thread_label(count), stock.config, stock.cores, settings))
        steps = min(_THREAD_STEPS, self._options.steps)
        with self._workers(stage, contenders) as team:
            self._warm_up(team)
            for repeat, turn, setting in interleave(_THREAD_REPEATS, settings):
                for contender in take_turns(contenders, turn):
                    self.observer.doing(f"finding stock's best thread count: {contender.name}")
                    request = stage.case.request(setting, repeat, steps)
                    team.serve(contender, setting, request, repeat, "threads")

    @contextmanager
    def _workers(self, stage: Stage, contenders: Sequence[Contender]) -> Iterator[Team]:
        team = Team(stage, contenders, self._folder, self._interrupts)
        try:
            self.observer.doing(f"starting {len(contenders)} systems: {stage.case.model}, {stage.view}")
            for problem in team.start(self._build):
                self.observer.noted(f"error: {problem}")
            yield team
        except BaseException:
            team.kill()
            raise
        team.close()

    def _left_s(self) -> float:
        cells = [cell for left in self._left.values() for cell in left]
        startups = sum(len({cell[3] for cell in self._left[stage]}) for stage in self._not_started)
        return self._estimate.total_s(cells, startups)

    def _progress(self) -> None:
        left = sum(map(len, self._left.values()))
        self.observer.progressed(self._total - left, self._total, self._left_s())


def _is_complete(
    stage: Stage,
    setting: AdapterSetting,
    repeat: int,
    contenders: Sequence[Contender],
    recorded: set[tuple[str, str, str, str, int]],
) -> bool:
    """Whether all systems of a round have a record: pairs from two sessions would be no pairs."""
    return all(
        (stage.case.model, stage.view, setting.name, contender.name, repeat) in recorded
        for contender in contenders
    )


def _thread_settings(settings: Sequence[AdapterSetting]) -> tuple[AdapterSetting, ...]:
    """The settings with fewest and most ControlNets, without LoRAs: those load on one thread anyhow."""
    counts = {setting.num_controlnets for setting in settings}
    return tuple(AdapterSetting(count, 0) for count in sorted({min(counts), max(counts)}))


def _describe_session() -> dict[str, object]:
    return {"started_at": now(), "load_1min": load_1min()}
