"""The command ``swiftdiff world bench``: what the KV cache, int8, streaming and profiling come to."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from .options import ResumeBench, SummaryJson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swiftdiff.world.bench.options import WorldBenchOptions
    from swiftdiff.world.bench.results import WorldBenchResult
    from swiftdiff.world.bench.session import WorldBenchEnd


def bench(
    *,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Default: bounce, or bounce-random where it is not installed."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of all clips. Default: a scene a seed.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each timed case. Default: 8.")
    ] = None,
    clip_blocks: Annotated[
        str | None,
        typer.Option(metavar="N,N…", help="Lengths compared with recomputing. Default: 7,14."),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Past blocks in the window. Default: 6.")
    ] = None,
    long_blocks: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Blocks of the long clip. Default: 56.")
    ] = None,
    drift_blocks: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Blocks of clips for drift. Default: 40.")
    ] = None,
    drift_seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Clips of each policy. Default: 5.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of scenes and noise. Default: 0.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where it runs. Default: cpu.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of the CPU. Default: 1.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for everything. Default: results/world-bench-<time>."),
    ] = None,
    resume: ResumeBench = None,
    as_json: SummaryJson = False,
) -> None:
    """Measure a world: cache against recomputing, windows, int8, streaming, drift.

    Cases take turns, every measurement is on disk at once, and ratios are taken
    within a repeat. The machine should be idle: the tables say when it was not.

    Exit codes: 0 all is as asked for; 1 something is not; 2 a mistake in the
    command, or a disk that takes no more; 130 Ctrl-C, after which --resume goes
    on.
    """
    counts = {
        "prompt": prompt, "repeats": repeats, "window_blocks": window, "long_blocks": long_blocks,
        "drift_blocks": drift_blocks, "drift_seeds": drift_seeds, "seed": seed, "device": device,
        "threads": threads,
    }  # fmt: skip
    given = {name: value for name, value in counts.items() if value is not None}
    with MeasuringProgress() as observer, exiting_on_ctrl_c():
        if resume is not None:
            if given or (model, clip_blocks, out) != (None, None, None):
                raise ConfigError(
                    "--resume goes on as the benchmark began: beside it there can only be --json"
                )
            ended = _resume(resume, observer)
        else:
            ended = _start(_options(model, clip_blocks, given), out, observer)
        ended, result = _report(ended)
    tell_if_stopped(ended.reason)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result, ended)
    raise typer.Exit(exit_code(ended.outcome, failed=bool(result.unmet)))


def _options(model: str | None, clip_blocks: str | None, given: Mapping[str, object]) -> WorldBenchOptions:
    from pydantic import ValidationError

    from swiftdiff.validation import describe
    from swiftdiff.world.bench.options import WorldBenchOptions
    from swiftdiff.world.presets import default_world

    values = {"model": model or default_world(), **given}
    if clip_blocks is not None:
        try:
            values["clip_blocks"] = tuple(int(number) for number in clip_blocks.split(","))
        except ValueError as error:
            raise ConfigError.for_field("--clip-blocks", clip_blocks, "numbers such as 7,14") from error
    try:
        return WorldBenchOptions.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, WorldBenchOptions)) from error


def _start(options: WorldBenchOptions, out: Path | None, observer: MeasuringObserver) -> WorldBenchEnd:
    from swiftdiff.world.bench.session import start_bench

    folder = out or fresh_folder(f"world-bench-{datetime.now():%Y%m%d-%H%M%S}")
    return start_bench(options, folder, argv=sys.argv, observer=observer)


def _resume(folder: Path, observer: MeasuringObserver) -> WorldBenchEnd:
    from swiftdiff.world.bench.session import resume_bench

    return resume_bench(folder, observer=observer)


def _report(ended: WorldBenchEnd) -> tuple[WorldBenchEnd, WorldBenchResult]:
    from swiftdiff.world.bench.report import read_bench_result, write_bench_report

    return report_ended(ended, write_bench_report, read_bench_result)


def _print_result(result: WorldBenchResult, ended: WorldBenchEnd) -> None:
    from rich.console import Console

    from swiftdiff.world.bench.report import REPORT, TABLES, bench_tables, header

    from .terminal import print_table

    console = Console(highlight=False)
    for line in header(result):
        console.print(line, markup=False)
    console.print()
    for table in bench_tables(result):
        print_table(console, table)
    folder = ended.folder.path
    console.print(f"tables:   {folder / REPORT}, {folder / TABLES}", markup=False, soft_wrap=True)
    console.print(f"records:  {ended.folder.raw_path}", markup=False, soft_wrap=True)
    if ended.outcome != "complete":
        console.print(
            f"\nINCOMPLETE. Go on with\n  swiftdiff world bench --resume {folder}",
            markup=False,
            soft_wrap=True,
        )
