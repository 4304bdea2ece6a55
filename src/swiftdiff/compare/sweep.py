"""Finds the highest request rate at which each system holds the SLO; each rate that is tried is a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftdiff.compare.folder import CompareFolder
from swiftdiff.compare.plan import ComparePlan, SweepOptions, slug
from swiftdiff.compare.rate_search import RateSearch
from swiftdiff.compare.session import Runner
from swiftdiff.config import ServingConfig
from swiftdiff.engine.options import ClosedLoad, Load, RateLoad, TraceLoad
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import ConfigError
from swiftdiff.report.result import RunResult
from swiftdiff.report.run_report import read_result
from swiftdiff.report.tables import AUTO, Column, Table
from swiftdiff.trace import read_trace

ALONE = "alone"  # the run without load, one request at a time
_SUSTAINED = 1.3  # times what a system serves one at a time: more than decoding beside the next one can gain
_FIRST_LOAD = 0.7  # share of the capacity without load that is tried first


@dataclass(frozen=True)
class Probe:
    """One run of a sweep.

    Attributes:
        rate: Requests a second; None of the run without load.
        held: Whether enough requests kept their SLO.
        result: The run's.
    """

    rate: float | None
    held: bool
    result: RunResult


@dataclass(frozen=True)
class SystemSweep:
    """What a sweep found of a system.

    Attributes:
        system: Its name.
        probes: By rate, the run without load first.
        highest_held: Requests a second; None if no rate held.
        lowest_failed: None if no rate failed.
        finished: Whether the search ended, and not the session.
    """

    system: str
    probes: tuple[Probe, ...]
    highest_held: float | None
    lowest_failed: float | None
    finished: bool

    @property
    def remark(self) -> str:
        """Why the rates mean less than they seem; else empty."""
        if not self.finished:
            return "search not finished"
        alone = next((probe.result.summary for probe in self.probes if probe.rate is None), None)
        if alone is None or self.highest_held is None:
            return "no rate holds"
        if self.highest_held > _SUSTAINED * alone.request_throughput:
            return "holds more than it can serve for long: the trace is too short"
        return ""


def check_sweep(plan: ComparePlan) -> None:
    """Check that a plan's sweep, if it has one, can be made.

    Raises:
        ConfigError: No request has an SLO, or the options say when requests arrive.
    """
    if plan.sweep is None:
        return
    if plan.options.load != TraceLoad():
        raise ConfigError("--sweep-rate chooses when requests arrive: no other option can")
    if plan.options.slo_ms is None and all(r.slo_ms is None for r in read_trace(Path(plan.trace))):
        raise ConfigError(
            f"no request of {plan.trace} has an slo_ms; give one for all with --goodput e2el:MS"
        )


def find_rates(runner: Runner) -> None:
    """Search all systems' rates side by side, one rate each in a turn: drifts meet all alike."""
    open_systems = list(runner.plan.systems)
    while open_systems:
        open_systems = [system for system in open_systems if _try_next(runner, system)]


def read_sweep(folder: CompareFolder, plan: ComparePlan) -> list[SystemSweep]:
    """Return what the runs in a folder come to, by system.

    Raises:
        StorageError: A run is damaged.
    """
    return [_read_system(folder, plan, system) for system in plan.systems]


def sweep_tables(sweeps: Sequence[SystemSweep], plan: ComparePlan) -> list[Table]:
    """Return the rates that hold, and throughput against load."""
    assert plan.sweep is not None
    by_name = {each.system: each for each in sweeps}
    baseline = by_name[plan.baseline].highest_held
    ordered = sorted(sweeps, key=lambda each: each.system != plan.baseline)
    remarks = [each.remark for each in ordered]
    rows = tuple(
        (
            each.system,
            each.highest_held,
            each.lowest_failed,
            each.highest_held / baseline if each.highest_held and baseline else None,
            *([remark] if any(remarks) else []),
        )
        for each, remark in zip(ordered, remarks, strict=True)
    )
    columns = (
        Column("system"),
        Column("holds", AUTO),
        Column("fails", AUTO),
        Column(f"× {plan.baseline}", AUTO),
        *([Column("remark")] if any(remarks) else []),
    )
    slo = "its own SLO" if plan.options.slo_ms is None else f"{plan.options.slo_ms:g} ms"
    note = (
        f"Highest rate tried at which {plan.sweep.attainment:.0%} of the requests kept {slo}, and the lowest "
        "at which fewer did. Poisson arrivals, the same for all systems at a rate. A short trace ends before "
        "a queue has grown: the longer it is, the more a rate means."
    )
    title = "Requests a second that hold the SLO"
    return [Table("rates", title, columns, rows, note), _load_table(sweeps)]


def sweep_to_json(sweeps: Sequence[SystemSweep], plan: ComparePlan) -> dict[str, Any]:
    """Return a sweep for programs, each run under the keys of ``summary.json``."""
    return {
        "baseline": plan.baseline,
        "options": plan.sweep and plan.sweep.model_dump(mode="json"),
        "systems": [
            {
                "system": each.system,
                "highest_rate_held": each.highest_held,
                "lowest_rate_failed": each.lowest_failed,
                "finished": each.finished,
                "probes": [
                    {"rate": probe.rate, "held": probe.held, **probe.result.to_json()}
                    for probe in each.probes
                ],
            }
            for each in sweeps
        ],
    }


def _load_table(sweeps: Sequence[SystemSweep]) -> Table:
    rows = tuple(
        (
            each.system,
            probe.rate,
            "yes" if probe.held else "no",
            *_loaded(probe.result),
        )
        for each in sweeps
        for probe in each.probes
    )
    columns = (
        Column("system"),
        Column("rate", AUTO),
        Column("holds"),
        Column("SLO, %", AUTO),
        Column("served/s", AUTO),
        Column("good/s", AUTO),
        Column("p50 ms", AUTO),
        Column("p99 ms", AUTO),
    )
    note = "Rate – is one request at a time. served/s and good/s: all, and those that kept the SLO."
    return Table("throughput-against-load", "Throughput against load", columns, rows, note)


def _loaded(result: RunResult) -> tuple[float | None, ...]:
    summary = result.summary
    latency = summary.latency
    return (
        None if summary.slo_attainment_rate is None else summary.slo_attainment_rate * 100,
        summary.request_throughput,
        summary.request_goodput,
        None if latency is None else latency.median,
        None if latency is None else latency.percentiles["p99"],
    )


def _try_next(runner: Runner, system: ServingConfig) -> bool:
    """Make the next run of a system; return whether its search goes on."""
    plan = runner.plan
    search, probes = _replay_search(runner.folder, plan, system)
    assert plan.sweep is not None
    load: Load
    if search is None:
        if probes:  # not even alone
            return False
        name, load, what = ALONE, ClosedLoad(max_concurrency=1), "one request at a time"
    else:
        rate = search.next_rate()
        if rate is None:
            return False
        name, load = f"{rate:g}", RateLoad(request_rate=rate, seed=plan.sweep.seed)
        what = f"{rate:g} requests/s"
    options = plan.options.model_copy(update={"load": load})
    return runner.run(system, _place(runner.folder, system, name), options, f"{system.name}, {what}")


def _replay_search(
    folder: CompareFolder, plan: ComparePlan, system: ServingConfig
) -> tuple[RateSearch | None, list[Probe]]:
    """Go through the search as far as runs are on disk. It is a function of their results, so it resumes."""
    assert plan.sweep is not None
    alone = _read_probe(folder, system, ALONE, None, plan.sweep)
    if alone is None:
        return None, []
    latency = alone.result.summary.latency
    if latency is None or not alone.held:
        return None, [alone]
    restore = alone.result.summary.stages.get("restore")
    occupied_ms = latency.mean + (restore.mean if restore else 0.0)
    search = RateSearch(_FIRST_LOAD * 1000 / occupied_ms, plan.sweep.precision, plan.sweep.max_probes)
    probes = [alone]
    while (rate := search.next_rate()) is not None:
        probe = _read_probe(folder, system, f"{rate:g}", rate, plan.sweep)
        if probe is None:
            break
        search.note(rate, held=probe.held)
        probes.append(probe)
    return search, probes


def _read_system(folder: CompareFolder, plan: ComparePlan, system: ServingConfig) -> SystemSweep:
    search, probes = _replay_search(folder, plan, system)
    return SystemSweep(
        system=system.name,
        probes=tuple(sorted(probes, key=lambda probe: probe.rate or 0.0)),
        highest_held=search.highest_held if search else None,
        lowest_failed=search.lowest_failed if search else None,
        finished=search.next_rate() is None if search else bool(probes),
    )


def _read_probe(
    folder: CompareFolder, system: ServingConfig, name: str, rate: float | None, sweep: SweepOptions
) -> Probe | None:
    place = _place(folder, system, name)
    if not folder.is_finished(place):
        return None
    result = read_result(RunFolder.open(place))
    attained = result.summary.slo_attainment_rate
    return Probe(rate, attained is not None and attained >= sweep.attainment, result)


def _place(folder: CompareFolder, system: ServingConfig, name: str) -> Path:
    return folder.path / "sweep" / slug(system.name) / name
