"""The command ``swiftdiff compare``: systems or runs in, one report of what pays and what it costs out."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from swiftdiff.compare.observer import CompareObserver
from swiftdiff.errors import ConfigError, StorageError

from .fresh_folder import fresh_folder
from .load_options import parse_load, parse_options
from .measuring import exit_code, exiting_on_ctrl_c, print_json, tell_if_stopped
from .options import PrintJson
from .status_line import StatusLine

if TYPE_CHECKING:
    from swiftdiff.compare.observer import Served
    from swiftdiff.compare.plan import ComparePlan
    from swiftdiff.compare.report import ReferenceOptions, Report
    from swiftdiff.compare.session import CompareEnd, Measure
    from swiftdiff.engine.options import ReplayOptions

DEFAULT_TRACE = "quickstart.jsonl"
DEFAULT_REPEATS = 3
DEFAULT_ATTAINMENT = 0.9
SYSTEMS_PER_TABLE = 4  # what 80 columns hold
INTERVALS_PER_TABLE = 3  # the same of columns with intervals in them


def compare(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CONFIG|FOLDER|RUN…",
            help="System configs, or a folder of them: they are measured. Or runs that are on disk.",
        ),
    ] = None,
    *,
    trace: Annotated[
        Path | None, typer.Option(metavar="TRACE", help="What is served. Default: the quickstart.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="R", help="Runs of each system. Default: 3.")
    ] = None,
    order: Annotated[
        Literal["interleaved", "abba"] | None,
        typer.Option(help="How systems take turns: A B C, A B C (default); or A B C, C B A."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="System or folder to measure against. Default: stock diffusers, or the first.",
        ),
    ] = None,
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="Also measure the engine with its switches on one after another."),
    ] = False,
    sweep_rate: Annotated[
        bool,
        typer.Option("--sweep-rate", help="Find the highest request rate that holds the SLO, instead."),
    ] = False,
    slo_attainment: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of requests that must keep the SLO in a sweep. Default: 0.9."),
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="Exit with 1 if a speed-up's interval reaches below this."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Serve the first N requests.")] = None,
    speed: Annotated[float | None, typer.Option(metavar="X", help="Arrivals, as in replay.")] = None,
    request_rate: Annotated[float | None, typer.Option(metavar="R", help="The same.")] = None,
    burstiness: Annotated[float | None, typer.Option(metavar="B", help="The same.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(min=1, metavar="C", help="The same.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of random arrivals, with --request-rate.")
    ] = None,
    num_warmups: Annotated[
        int, typer.Option(min=0, metavar="W", help="Requests served before each run and not counted.")
    ] = 0,
    goodput: Annotated[
        str | None, typer.Option(metavar="e2el:MS", help="SLO for every request, in place of the trace's.")
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(metavar="HOW|FILE", help="What stands behind unknown adapter ids, as in replay."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for everything. Default, if something is measured: results/compare-<time>-<trace>.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on: measure what is missing."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME…",
            help="Networks that judge pictures too: clip, lpips, fid; needs swiftdiff\\[quality], weights.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of these weights. Default: torch's own for downloads."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare also what differs in more than the system.")
    ] = False,
    as_json: PrintJson = False,
) -> None:
    """Show which system is how much faster, what it costs, and whether pictures stay the same.

    Configs are measured: every system serves the trace R times, in turns, each
    time in a process of its own, and every run is kept as swiftdiff replay would
    write it. configs, where there is no such folder, stands for the shipped ones.
    The machine should be idle: the tables say when it was not.

    Requests are paired with the baseline's. Runs that differ in trace, model,
    load, adapter store or hardware are refused, and so are incomplete ones.

    Exit codes: 0 done; 1 a run or request failed, or --fail-below; 2 a mistake in
    the command or its files; 130 Ctrl-C, after which --resume goes on.
    """
    given = {
        "--trace": trace, "--repeats": repeats, "--order": order, "--ablation": ablation or None,
        "--sweep-rate": sweep_rate or None, "--limit": limit, "--speed": speed,
        "--request-rate": request_rate, "--burstiness": burstiness, "--max-concurrency": max_concurrency,
        "--seed": seed, "--num-warmups": num_warmups or None, "--goodput": goodput, "--adapters": adapters,
        "--slo-attainment": slo_attainment,
    }  # fmt: skip
    measuring = [name for name, value in given.items() if value is not None]
    _check_sweep(sweep_rate, slo_attainment, fail_below)
    references = _read_metrics(metrics, weights)
    if resume is not None and (paths or measuring or out is not None or baseline is not None):
        raise ConfigError(
            "--resume goes on as the comparison began: beside it there can only be --fail-below, --metrics, "
            "--weights, --force and --json"
        )
    if resume is None and not paths:
        raise ConfigError("name systems or runs: swiftdiff compare configs, or swiftdiff compare RUN RUN")
    ended: CompareEnd | None = None
    with _Progress() as observer, exiting_on_ctrl_c():
        if resume is not None:
            ended = _resume(resume, observer)
        elif _are_configs(paths or [], measuring):
            load = parse_load(speed, request_rate, burstiness, max_concurrency, seed)
            plan = _plan(
                paths or [],
                trace,
                parse_options(load, limit, num_warmups, goodput, _absolute(adapters)),
                ablation=ablation,
                baseline=baseline,
                force=force,
                repeats=DEFAULT_REPEATS if repeats is None else repeats,
                order=order or "interleaved",
                attainment=(slo_attainment or DEFAULT_ATTAINMENT) if sweep_rate else None,
            )
            ended = _start(plan, out or _default_folder(Path(plan.trace)), observer)
        ended, report = _report(ended, paths or [], baseline, out, references, force=force)
    tell_if_stopped(None if ended is None else ended.reason)
    if as_json:
        print_json(report.values)
    else:
        _print(report, out if ended is None else ended.folder.path, ended)
    too_slow = _too_slow(report, fail_below)
    for sentence in too_slow:
        typer.secho(sentence, fg="red", err=True)
    outcome = "complete" if ended is None else ended.outcome
    raise typer.Exit(exit_code(outcome, failed=bool(too_slow or report.num_failed)))


def _check_sweep(sweep_rate: bool, slo_attainment: float | None, fail_below: float | None) -> None:
    if slo_attainment is not None and not sweep_rate:
        raise ConfigError("--slo-attainment has a meaning only with --sweep-rate")
    if slo_attainment is not None and not 0 < slo_attainment <= 1:
        allowed = "a share above 0 and at most 1, such as 0.9"
        raise ConfigError.for_field("--slo-attainment", slo_attainment, allowed)
    if sweep_rate and fail_below is not None:
        raise ConfigError("--fail-below is about speed-ups, which --sweep-rate does not measure")
    if fail_below is not None and not (fail_below > 0 and math.isfinite(fail_below)):
        raise ConfigError.for_field("--fail-below", fail_below, "a ratio above 0, such as 1.2")


def _read_metrics(metrics: str | None, weights: Path | None) -> ReferenceOptions:
    """Return which networks judge pictures; what they need is missed now, not after hours of measuring."""
    from swiftdiff.compare.report import ReferenceOptions

    if metrics is None:
        if weights is not None:
            raise ConfigError("--weights has a meaning only with --metrics")
        return ReferenceOptions()
    from swiftdiff.quality.reference_metrics import check_reference_metrics

    names = tuple(dict.fromkeys(name.strip() for name in metrics.split(",")))
    check_reference_metrics(names, weights)
    return ReferenceOptions(names, weights)


def _are_configs(paths: list[Path], measuring: list[str]) -> bool:
    from swiftdiff.compare.plan import is_config

    are = [is_config(path) for path in paths]
    if all(are):
        return True
    if any(are):
        config, run = paths[are.index(True)], paths[are.index(False)]
        raise ConfigError(
            f"{config} is to be measured and {run} is not a config: name configs, or runs on disk, not both"
        )
    if measuring:
        raise ConfigError(f"{measuring[0]} has a meaning only where configs are measured; {paths[0]} is none")
    return False


def _plan(
    paths: list[Path],
    trace: Path | None,
    options: ReplayOptions,
    *,
    ablation: bool,
    baseline: str | None,
    force: bool,
    repeats: int,
    order: Literal["interleaved", "abba"],
    attainment: float | None,
) -> ComparePlan:
    from swiftdiff.compare.ablation import ablation_steps
    from swiftdiff.compare.plan import SweepOptions, choose_baseline, find_configs, make_plan
    from swiftdiff.compare.sweep import check_sweep
    from swiftdiff.resources import path as resource

    systems = find_configs(paths)
    steps = ablation_steps(systems) if ablation else []
    systems += steps
    plan = make_plan(
        resource(DEFAULT_TRACE) if trace is None else trace,
        systems,
        options,
        baseline=choose_baseline(systems, baseline),
        repeats=repeats,
        order=order,
        ablation=tuple(step.name for step in steps),
        sweep=None if attainment is None else SweepOptions(attainment=attainment),
        force=force,
    )
    check_sweep(plan)
    return plan


def _start(plan: ComparePlan, out: Path, observer: _Progress) -> CompareEnd:
    from swiftdiff.compare.session import start_comparison

    return start_comparison(plan, out, _measure(plan), argv=sys.argv, observer=observer)


def _resume(folder: Path, observer: _Progress) -> CompareEnd:
    from swiftdiff.compare.session import resume_comparison

    return resume_comparison(folder, _measure, argv=sys.argv, observer=observer)


def _measure(plan: ComparePlan) -> Measure:
    from swiftdiff.compare.session import take_turns
    from swiftdiff.compare.sweep import find_rates

    return take_turns if plan.sweep is None else find_rates


def _report(
    ended: CompareEnd | None,
    paths: list[Path],
    baseline: str | None,
    out: Path | None,
    references: ReferenceOptions,
    *,
    force: bool,
) -> tuple[CompareEnd | None, Report]:
    from swiftdiff.compare.folder import CompareFolder, is_comparison
    from swiftdiff.compare.report import report_measured, report_runs, write_report
    from swiftdiff.report.comparison_report import check_free

    if ended is not None:
        report = report_measured(ended.folder, references=references, force=force)
        try:
            write_report(report, ended.folder.path)
        except StorageError as error:  # a full disk: show at least what can be read
            ended = dataclasses.replace(ended, outcome="stopped", reason=ended.reason or error)
        return ended, report
    if out is not None:
        check_free(out)
    if len(paths) == 1 and is_comparison(paths[0]):
        folder = CompareFolder.open(paths[0])
        report = report_measured(folder, baseline=baseline, references=references, force=force)
    else:
        report = report_runs(paths, baseline=baseline, references=references, force=force)
    if out is not None:
        write_report(report, out)
    return None, report


def _too_slow(report: Report, fail_below: float | None) -> list[str]:
    if fail_below is None:
        return []
    return [
        f"{system} is not shown to be {fail_below:g} times as fast: "
        + ("it has no speed-up" if low is None else f"its interval begins at {low:.2f}")
        for system, low in report.speedups.items()
        if low is None or low < fail_below
    ] or ([] if report.speedups else ["no speed-up was measured"])


def _absolute(adapters: str | None) -> str | None:
    """Return a mapping file's absolute path, so that the comparison can go on from another folder."""
    return str(Path(adapters).resolve()) if adapters is not None and Path(adapters).is_file() else adapters


def _default_folder(trace: Path) -> Path:
    name = trace.name.removesuffix(".gz").removesuffix(".jsonl")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "trace"
    return fresh_folder(f"compare-{datetime.now():%Y%m%d-%H%M%S}-{safe}")


def _print(report: Report, folder: Path | None, ended: CompareEnd | None) -> None:
    from rich.console import Console

    from swiftdiff.compare.report import PAGE
    from swiftdiff.report.comparison_report import REPORT, TABLES
    from swiftdiff.report.comparison_tables import split_columns

    from .terminal import print_table

    console = Console(highlight=False)
    for warning in report.warnings:
        console.print(warning, style="yellow", markup=False)
    if report.order:
        console.print(report.order, markup=False)
    if report.warnings or report.order:
        console.print()
    at_most = {"measure": SYSTEMS_PER_TABLE, "pixels": INTERVALS_PER_TABLE, "scores": INTERVALS_PER_TABLE}
    for table in report.tables:
        per_table = at_most.get(table.columns[0].name, len(table.columns))
        for part in split_columns(table, per_table):
            print_table(console, part)
    if folder is not None:
        pages = [folder / PAGE] if report.page is not None else []
        for name, place in {"report": [*pages, folder / REPORT], "tables": [folder / TABLES]}.items():
            console.print(f"{name + ':':8}{', '.join(map(str, place))}", markup=False, soft_wrap=True)
    if ended is not None:
        console.print(f"runs:   {ended.folder.path}/<system>/<repeat>", markup=False, soft_wrap=True)
        if ended.outcome != "complete" or report.num_failed:
            console.print(
                f"\nNOT ALL WAS MEASURED. To measure what is missing:\n  swiftdiff compare --resume {folder}",
                markup=False,
                soft_wrap=True,
            )


class _Progress(CompareObserver):
    """A line on stderr with the run that is made; in a log file, a line a run."""

    def __init__(self) -> None:
        self._line = StatusLine()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.clear()

    def noted(self, message: str) -> None:
        """Print a line that stays."""
        self._line.note(message)

    def running(self, what: str) -> None:
        """Say which run begins."""
        if self._line.is_live:
            self._line.draw(f"{what}: starting")
        else:
            self._line.note(what)

    def served(self, what: str, served: Served) -> None:
        """Count its requests."""
        failed = f", {served.failed} failed" if served.failed else ""
        self._line.draw(f"{what}: {served.done} of {served.total}{failed}")
