"""The command ``swiftdiff sweep-k``: how long each LoRA may be late, and what that saves."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

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
from .options import SummaryJson

if TYPE_CHECKING:
    from swiftdiff.compare.sweep_k_options import SweepOptions
    from swiftdiff.compare.sweep_k_results import SweepResult
    from swiftdiff.compare.sweep_k_session import SweepEnd
    from swiftdiff.config import ServingConfig

DEFAULT_CONFIG = "configs/swiftdiff.toml"
DEFAULT_POINTS = 8


def sweep_k(
    *,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="As in a system's config. Default: the config's.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG.toml", help="The system: device, lanes, adapter store. Default: swiftdiff."
        ),
    ] = None,
    loras: Annotated[
        str | None,
        typer.Option(metavar="A,B…", help="Ids, or all of the store. Default: the trace's, or all."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="TRACE", help="Prompts, ControlNets and seeds; LoRAs count by --loras alone."),
    ] = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="0,2,4…", help="Steps without the LoRA; 0-8 is a range.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Or so many k over all steps. Default: 8.")
    ] = None,
    load_time: Annotated[
        str, typer.Option(metavar="MS", help="Of a LoRA, emulated; measured: what the config's store takes.")
    ] = "measured",
    margin: Annotated[
        str | None,
        typer.Option(metavar="M", help="Loss allowed: 0.05, or style=…,attributes=…,ssim=…. Default: 0.05."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, max=1000, metavar="N", help="Denoising steps. Default: 20.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures a LoRA and k. Default: 16.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Latencies a LoRA and k. Default: 3.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="S", help="Of scenes and noise. Default: 0.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for all. Default: results/sweep-k-<time>.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted sweep.")
    ] = None,
    as_json: SummaryJson = False,
) -> None:
    """Find how many steps may begin without each LoRA, and what that saves.

    Draws the same requests with each LoRA patched at exactly step k, judges the
    pictures beside those at k = 0, and measures latency with the LoRA arriving
    after its load time. Writes bal-table.toml, which a system reads with
    bal_k = "auto" and bal_table = "FILE".

    The margin is what may be lost of the style score and the attribute score of
    the embedded model's LoRAs, and of SSIM with other models; the upper end of
    the loss's 95 % interval must stay within it.

    Exit codes: 0 done; 1 a LoRA failed; 2 a mistake in the command or its files,
    or a disk that takes no more; 130 Ctrl-C, after writing down what was
    measured.
    """
    given = (model, config, loras, trace, k, points, margin, steps, prompts, repeats, seed, out)
    with MeasuringProgress() as observer, exiting_on_ctrl_c():
        if resume is not None:
            if load_time != "measured" or any(option is not None for option in given):
                raise ConfigError("--resume goes on as the sweep began: beside it there can only be --json")
            ended = _resume(resume, observer)
        else:
            counts = {"num_inference_steps": steps, "prompts": prompts, "repeats": repeats, "seed": seed}
            serving = _read_system(config, model)
            ks = _choose_ks(k, points, steps or 20)
            options = _make_options(serving, loras, trace, (ks, load_time, margin), counts)
            ended = _start(options, out, observer)
        ended, result = _report(ended)
    tell_if_stopped(ended.reason)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result, ended)
    raise typer.Exit(exit_code(ended.outcome, failed=bool(result.failures)))


def _read_system(config: Path | None, model: str | None) -> ServingConfig:
    from swiftdiff.config import load_config
    from swiftdiff.engine.session import resolve_paths
    from swiftdiff.resources import workloads_root

    path = config or workloads_root() / DEFAULT_CONFIG
    serving = load_config(path)
    if model is not None:
        serving = serving.model_copy(update={"model": model})
    if serving.engine != "swiftdiff":
        raise ConfigError(f"{path}: engine is {serving.engine!r}, but only 'swiftdiff' patches LoRAs late")
    return resolve_paths(serving, path.resolve().parent)


def _choose_ks(k: str | None, points: int | None, steps: int) -> tuple[int, ...]:
    from swiftdiff.compare.sweep_k_options import parse_ks, spread_ks

    if k is not None and points is not None:
        raise ConfigError("either --k or --points, not both")
    return spread_ks(points or DEFAULT_POINTS, steps) if k is None else parse_ks(k, steps)


def _make_options(
    serving: ServingConfig,
    loras: str | None,
    trace: Path | None,
    texts: tuple[tuple[int, ...], str, str | None],
    counts: dict[str, int | None],
) -> SweepOptions:
    from pydantic import ValidationError

    from swiftdiff.compare.sweep_k_options import DEFAULT_MARGIN, SweepOptions, parse_load_time, parse_margin
    from swiftdiff.trace import scan_trace
    from swiftdiff.validation import describe

    ks, load_time, margin = texts
    values = {
        "config": serving,
        "loras": _choose_loras(loras, trace, serving),
        "ks": ks,
        "load_time_ms": parse_load_time(load_time),
        "margin": DEFAULT_MARGIN if margin is None else parse_margin(margin),
        "trace": None if trace is None else str(trace.resolve()),
        "trace_sha256": None if trace is None else scan_trace(trace).sha256,
    }
    try:
        return SweepOptions.model_validate(values | {k: v for k, v in counts.items() if v is not None})
    except ValidationError as error:
        raise ConfigError(describe(error, SweepOptions)) from error


def _choose_loras(loras: str | None, trace: Path | None, serving: ServingConfig) -> tuple[str, ...]:
    from swiftdiff.compare.sweep_k_requests import choose_loras, loras_of

    asked = None if loras in (None, "all") else loras.split(",") if loras else []
    if loras is None and trace is not None:
        asked = list(loras_of(trace))
        if not asked:
            raise ConfigError(f"--trace {trace} names no LoRA: say which with --loras")
    return choose_loras(asked, serving)


def _start(options: SweepOptions, out: Path | None, observer: MeasuringObserver) -> SweepEnd:
    from swiftdiff.compare.sweep_k_session import start_sweep

    return start_sweep(options, out or _default_folder(), argv=sys.argv, observer=observer)


def _resume(folder: Path, observer: MeasuringObserver) -> SweepEnd:
    from swiftdiff.compare.sweep_k_session import resume_sweep

    return resume_sweep(folder, observer=observer)


def _report(ended: SweepEnd) -> tuple[SweepEnd, SweepResult]:
    from swiftdiff.compare.sweep_k_report import write_sweep_report
    from swiftdiff.compare.sweep_k_results import read_result

    return report_ended(ended, write_sweep_report, read_result)


def _default_folder() -> Path:
    return fresh_folder(f"sweep-k-{datetime.now():%Y%m%d-%H%M%S}")


def _print_result(result: SweepResult, ended: SweepEnd) -> None:
    from swiftdiff.compare.sweep_k_report import BAL_TABLE, PAGE, PLOT, REPORT
    from swiftdiff.compare.sweep_k_tables import sweep_tables

    from .terminal import print_table

    console = Console(highlight=False)
    for table in sweep_tables(result):
        print_table(console, table)
    for failure in result.failures:
        console.print(f"FAILED: {failure}", markup=False, style="red")
    folder = ended.folder.path
    places = {"report": REPORT, "page": PAGE, "plot": PLOT, "table": BAL_TABLE}
    for name, file in places.items():
        if (folder / file).exists():
            console.print(f"{name + ':':<9} {folder / file}", markup=False, soft_wrap=True)
    if ended.outcome != "complete":
        console.print(
            f"\nINCOMPLETE. Go on with\n  swiftdiff sweep-k --resume {folder}", markup=False, soft_wrap=True
        )
