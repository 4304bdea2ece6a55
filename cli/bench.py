"""The command ``swiftdiff bench``: systems take turns at the same requests; tables of seconds and ratios."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from swiftdiff.bench.options import DEFAULT_MODELS, VIEWS, BenchOptions
from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.errors import ConfigError

from .fresh_folder import fresh_folder
from .measuring import (
    MeasuringProgress,
    exit_code,
    exiting_on_ctrl_c,
    print_json,
    report_ended,
    tell_if_stopped,
)
from .options import BenchSetting, ResumeBench, SummaryJson

if TYPE_CHECKING:
    from swiftdiff.bench.results import BenchResult
    from swiftdiff.bench.session import BenchEnd

ViewChoice = Literal["same-hardware", "one-core", "both"]


def bench(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A model; may be repeated. Default: shapes and sdxl-thin."),
    ] = None,
    setting: BenchSetting = None,
    view: Annotated[
        ViewChoice,
        typer.Option(help="All cores for all; or one core for each device, which is how the paper counts."),
    ] = "both",
    systems: Annotated[
        str | None,
        typer.Option(metavar="A,B…", help="Beside stock, in every setting; see below. Default: a selection."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Measurements of each request. Default: 5.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Denoising steps. Default: 20.")
    ] = None,
    warmups: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Short requests of each kind beforehand. Default: 1."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for everything. Default: results/bench-<time>.")
    ] = None,
    resume: ResumeBench = None,
    as_json: SummaryJson = False,
) -> None:
    """Measure stock diffusers against swiftdiff and each of its switches.

    Every system serves the same requests in a process of its own; they take
    turns, one computes at a time, and ratios are taken within a repeat. The
    machine should be idle: the tables say when it was not.

    Systems: stock (always), swiftdiff, swiftdiff+cache, swiftdiff+bal40; and for
    the ablation all-off, latent-only, offload-only, graphs-only, kernels-only,
    invariants-only.

    Exit codes: 0 all was measured; 1 something failed; 2 a mistake in the
    command, or a disk that takes no more; 130 Ctrl-C, after writing down what was
    measured.
    """
    with MeasuringProgress() as observer, exiting_on_ctrl_c():
        if resume is not None:
            given = (model, setting, systems, repeats, steps, warmups, out)
            if view != "both" or any(option is not None for option in given):
                raise ConfigError(
                    "--resume goes on as the benchmark began: beside it there can only be --json"
                )
            ended = _resume(resume, observer)
        else:
            options = _options(model, setting, view, systems, (repeats, steps, warmups))
            ended = _start(options, out, observer)
        ended, result = _report(ended)
    tell_if_stopped(ended.reason)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result, ended)
    raise typer.Exit(exit_code(ended.outcome, failed=bool(result.failures)))


def _options(
    models: list[str] | None,
    settings: list[str] | None,
    view: ViewChoice,
    systems: str | None,
    counts: tuple[int | None, int | None, int | None],
) -> BenchOptions:
    defaults = BenchOptions()
    repeats, steps, warmups = counts
    names = None if systems is None else tuple(name.strip() for name in systems.split(","))
    return BenchOptions(
        models=tuple(models) if models else DEFAULT_MODELS,
        settings=tuple(settings) if settings else None,
        views=VIEWS if view == "both" else (view,),
        systems=names,
        repeats=defaults.repeats if repeats is None else repeats,
        steps=defaults.steps if steps is None else steps,
        warmups=defaults.warmups if warmups is None else warmups,
    )


def _start(options: BenchOptions, out: Path | None, observer: MeasuringObserver) -> BenchEnd:
    from swiftdiff.bench.session import start_bench

    return start_bench(options, out or _default_folder(), argv=sys.argv, observer=observer)


def _resume(folder: Path, observer: MeasuringObserver) -> BenchEnd:
    from swiftdiff.bench.session import resume_bench

    return resume_bench(folder, observer=observer)


def _report(ended: BenchEnd) -> tuple[BenchEnd, BenchResult]:
    from swiftdiff.bench.report import read_bench_result, write_bench_report

    return report_ended(ended, write_bench_report, read_bench_result)


def _default_folder() -> Path:
    return fresh_folder(f"bench-{datetime.now():%Y%m%d-%H%M%S}")


def _print_result(result: BenchResult, ended: BenchEnd) -> None:
    from swiftdiff.bench.report import REPORT, TABLES, header
    from swiftdiff.bench.tables import bench_tables

    from .terminal import print_table

    console = Console(highlight=False)
    for line in header(result):
        console.print(line, markup=False)
    console.print()
    for table in bench_tables(result):
        print_table(console, table)
    for failure in result.failures:
        console.print(f"FAILED: {failure}", markup=False, style="red")
    folder = ended.folder.path
    console.print(f"tables:   {folder / REPORT}, {folder / TABLES}", markup=False, soft_wrap=True)
    console.print(f"records:  {ended.folder.raw_path}", markup=False, soft_wrap=True)
    if ended.outcome != "complete":
        console.print(
            f"\nINCOMPLETE. Go on with\n  swiftdiff bench --resume {folder}", markup=False, soft_wrap=True
        )
