"""The command ``swiftdiff bench-gpu``: the paper's settings on the GPUs at hand, within some minutes."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from swiftdiff.bench.gpu_options import GpuBenchOptions
from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.errors import ConfigError, StorageError

from .fresh_folder import fresh_folder
from .measuring import MeasuringProgress, exit_code, exiting_on_ctrl_c, print_json, tell_if_stopped
from .options import BenchSetting, SummaryJson

if TYPE_CHECKING:
    from swiftdiff.bench.gpu_results import GpuBenchResult
    from swiftdiff.bench.gpu_session import GpuBenchEnd


def bench_gpu(
    *,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A preset or an SDXL folder. Default: sdxl.")
    ] = None,
    setting: BenchSetting = None,
    systems: Annotated[
        str | None, typer.Option(metavar="A,B…", help="Beside stock, in every setting. Default: all.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Repeats, if the minutes allow. Default: 5.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="Denoising steps. Default: 50.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, metavar="M", help="What one session may take. Default: 8.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use so many GPUs. Default: all there are.")
    ] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute in bfloat16, not float16.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try it on the CPU with a thin model and few steps.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for everything. Default: results/bench-gpu-<time>."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on where a session ended, with new minutes.")
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Copy the report into DIR/<gpu>-bench; pictures stay behind."),
    ] = None,
    as_json: SummaryJson = False,
) -> None:
    """Measure stock diffusers against swiftdiff on this machine's GPUs.

    SDXL with random weights at 1024×1024 and 50 steps, in the paper's seven
    settings; then each exact switch alone, the approximate ones, and all GPUs
    together if there are several. Nothing is downloaded.

    A session keeps within its minutes: first it measures every setting once, then
    it plans what else fits and says what does not. --resume measures that later,
    and also goes on after Ctrl-C or a killed process.

    Exit codes: 0 what fits was measured; 1 something failed; 2 a mistake in the
    command, or a disk that takes no more; 130 Ctrl-C, after writing down what was
    measured.
    """
    with MeasuringProgress() as observer, exiting_on_ctrl_c():
        if resume is not None:
            others = (model, setting, systems, repeats, steps, minutes, gpus, out)
            if bfloat16 or dry_run or any(option is not None for option in others):
                raise ConfigError(
                    "--resume goes on as the benchmark began: beside it there can only be --publish and "
                    "--json"
                )
            ended = _resume(resume, observer)
        else:
            options = _options(dry_run, bfloat16)
            names = None if systems is None else tuple(name.strip() for name in systems.split(","))
            chosen = {
                "model": model,
                "settings": tuple(setting) if setting else None,
                "systems": names,
                "repeats": repeats,
                "steps": steps,
                "minutes": minutes,
                "gpus": gpus,
            }
            given = {name: value for name, value in chosen.items() if value is not None}
            ended = _start(options.model_copy(update=given), out, observer)
        result = _report(ended)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result, ended)
    if publish is not None:
        _publish(ended, result, publish)
    raise typer.Exit(exit_code(ended.outcome, failed=bool(result.failures)))


def _options(dry_run: bool, bfloat16: bool) -> GpuBenchOptions:
    if not dry_run:
        return GpuBenchOptions(dtype="bfloat16" if bfloat16 else "float16")
    if bfloat16:
        raise ConfigError("--dry-run computes in float32: leave out --bfloat16")
    return GpuBenchOptions.dry()


def _start(options: GpuBenchOptions, out: Path | None, observer: MeasuringObserver) -> GpuBenchEnd:
    from swiftdiff.bench.gpu_session import start_gpu_bench

    out = out or fresh_folder(f"bench-gpu-{datetime.now():%Y%m%d-%H%M%S}")
    return start_gpu_bench(options, out, argv=sys.argv, observer=observer)


def _resume(folder: Path, observer: MeasuringObserver) -> GpuBenchEnd:
    from swiftdiff.bench.gpu_session import resume_gpu_bench

    return resume_gpu_bench(folder, observer=observer)


def _report(ended: GpuBenchEnd) -> GpuBenchResult:
    from swiftdiff.bench.gpu_report import write_gpu_report
    from swiftdiff.bench.gpu_results import read_gpu_result

    tell_if_stopped(ended.reason)
    if ended.reason is None:
        return write_gpu_report(ended)
    try:
        return write_gpu_report(ended)
    except StorageError:  # a full disk: show at least what can be read
        return read_gpu_result(ended.folder, outcome=ended.outcome, cut=ended.cut)


def _publish(ended: GpuBenchEnd, result: GpuBenchResult, root: Path) -> None:
    """Publish, and say on stderr where, or why not: the numbers are on stdout already."""
    from swiftdiff.bench.gpu_report import publish, why_not_published

    reason = why_not_published(result)
    if reason is None:
        line = f"published: {publish(ended.folder, result, root)}"
    else:
        line = f"not published: {reason}"
    Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)


def _print_result(result: GpuBenchResult, ended: GpuBenchEnd) -> None:
    from swiftdiff.bench.gpu_report import gpu_header
    from swiftdiff.bench.gpu_tables import gpu_tables
    from swiftdiff.bench.report import REPORT, TABLES

    from .terminal import print_table

    console = Console(highlight=False)
    for line in gpu_header(result):
        console.print(line, markup=False)
    console.print()
    for table in gpu_tables(result):
        print_table(console, table)
    for failure in result.failures:
        console.print(f"FAILED: {failure}", markup=False, style="red")
    folder = ended.folder.path
    console.print(f"tables:    {folder / REPORT}, {folder / TABLES}", markup=False, soft_wrap=True)
    console.print(f"records:   {ended.folder.raw_path}", markup=False, soft_wrap=True)
    if ended.cut:
        command = f"swiftdiff bench-gpu --resume {folder}"
        console.print(f"\nMore can be measured with\n  {command}", markup=False, soft_wrap=True)
