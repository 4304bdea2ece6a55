"""The command ``swiftdiff replay``: a trace in, pictures and tables out."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swiftdiff.errors import ConfigError, StorageError

from . import replay_target
from .fresh_folder import fresh_folder
from .load_options import parse_load, parse_options
from .measuring import exit_code, exiting_on_ctrl_c, print_json, tell_if_stopped
from .options import SummaryJson

if TYPE_CHECKING:
    from swiftdiff.engine.options import ReplayOptions
    from swiftdiff.engine.session import Ended
    from swiftdiff.report.result import RunResult

DEFAULT_CONFIG = "configs/diffusers.toml"
DEFAULT_PERCENTILES = "50,90,95,99"


def replay(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE", help="JSONL file of requests; optional with --resume.")
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.toml", help="The system that serves. Default: stock diffusers."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run's folder. Default: results/<time>-<trace>-<system>."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Serve the first N requests.")] = None,
    speed: Annotated[
        float | None, typer.Option(metavar="X", help="Let requests arrive X times as fast as the trace says.")
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Random arrivals, R requests a second; inf is all at once."),
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(metavar="B", help="With --request-rate: gamma shape of the gaps; 1 is Poisson."),
    ] = None,
    max_concurrency: Annotated[
        int | None,
        typer.Option(min=1, metavar="C", help="Closed loop: C requests under way, the next when one ends."),
    ] = None,
    num_warmups: Annotated[
        int, typer.Option(min=0, metavar="W", help="Requests served beforehand and not counted.")
    ] = 0,
    goodput: Annotated[
        str | None,
        typer.Option(metavar="e2el:MS", help="SLO for every request, in place of the trace's slo_ms."),
    ] = None,
    metric_percentiles: Annotated[
        str, typer.Option(metavar="P,P…", help="Percentiles of the latency table.")
    ] = DEFAULT_PERCENTILES,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="HOW|FILE",
            help="What stands behind adapter ids that the store lacks: alias gives each a file of its own, "
            "popularity and hash share the store's, FILE.json or FILE.csv says.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="With --request-rate: of the gaps.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send the requests to a server with OpenAI's Images API, in place of a system in here.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="With --target: the model to ask for, if it has several.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --target: the server's API key is in it.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted run: serve what is missing.")
    ] = None,
    as_json: SummaryJson = False,
) -> None:
    """Replay TRACE through a serving system: pictures, records, tables and a plot.

    With no other option the embedded model serves it with stock diffusers, and
    requests arrive when the trace says. Latency counts from the arrival. With
    --target a server serves it; what waits in the client is shown apart.

    Exit codes: 0 every request was served; 1 some failed; 2 a mistake in the
    command or its files, or a disk that takes no more; 130 Ctrl-C, after writing
    down what finished.
    """
    from swiftdiff.report.run_report import read_result, write_report

    percentiles = _parse_percentiles(metric_percentiles)
    with exiting_on_ctrl_c():
        if resume is not None:
            load_options = (speed, request_rate, burstiness, max_concurrency, seed)
            given = (config, out, limit, goodput, adapters, target, model, *load_options)
            if any(option is not None for option in given) or num_warmups:
                raise ConfigError(
                    "--resume goes on as the run began: besides it there can only be TRACE, "
                    "--api-key-file, --metric-percentiles and --json"
                )
            ended = _resume(resume, trace, api_key_file)
        elif trace is None:
            raise ConfigError("name a trace: swiftdiff replay TRACE (swiftdiff init DIR writes an example)")
        else:
            load = parse_load(speed, request_rate, burstiness, max_concurrency, seed)
            options = parse_options(load, limit, num_warmups, goodput, adapters)
            if target is None:
                _refuse({"--model": model, "--api-key-file": api_key_file}, "only with --target")
                ended = _start(trace, config, options, out)
            else:
                _refuse(
                    {"--config": config, "--adapters": adapters}, "not with --target: the server has its own"
                )
                folder = out if out is not None else _default_folder(trace, replay_target.label(target))
                ended = replay_target.start(
                    trace, target, options, folder, model=model, key_file=api_key_file
                )
        try:
            result = write_report(ended.folder, percentiles)
        except StorageError as error:  # a full disk: show at least what can be read
            ended = dataclasses.replace(ended, outcome="stopped", reason=ended.reason or error)
            result = read_result(ended.folder, percentiles)
    tell_if_stopped(ended.reason)
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result, ended, percentiles)
    raise typer.Exit(exit_code(ended.outcome, failed=bool(result.summary.failed)))


def _start(trace: Path, config: Path | None, options: ReplayOptions, out: Path | None) -> Ended:
    from swiftdiff.config import load_config
    from swiftdiff.engine.session import resolve_paths, start_run
    from swiftdiff.resources import path as resource

    from .terminal import ProgressObserver

    config = config if config is not None else resource(DEFAULT_CONFIG)
    serving = resolve_paths(load_config(config), config.resolve().parent)
    folder = out if out is not None else _default_folder(trace, serving.name)
    with ProgressObserver() as observer:
        return start_run(trace, serving, options, folder, argv=sys.argv, observer=observer)


def _refuse(options: dict[str, object], reason: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{' and '.join(given)}: {reason}")


def _resume(folder: Path, trace: Path | None, api_key_file: Path | None) -> Ended:
    from swiftdiff.engine.session import resume_run

    from .terminal import ProgressObserver

    if replay_target.is_http_run(folder):
        return replay_target.resume(folder, trace, api_key_file)
    _refuse({"--api-key-file": api_key_file}, "only for a run against a server")
    with ProgressObserver() as observer:
        return resume_run(folder, trace, observer=observer)


def _parse_percentiles(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 100 for value in values):
        raise ConfigError.for_field("--metric-percentiles", text, "numbers from 0 to 100, such as 50,90,99")
    return values


def _default_folder(trace: Path, system: str) -> Path:
    name = trace.name.removesuffix(".gz").removesuffix(".jsonl")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{name}-{system}").strip("._") or "run"
    return fresh_folder(f"{datetime.now():%Y%m%d-%H%M%S}-{safe}")


def _print_result(result: RunResult, ended: Ended, percentiles: Sequence[float]) -> None:
    from rich.console import Console

    from swiftdiff.report.run_report import PLOT, REPORT, TABLES
    from swiftdiff.report.tables import run_tables

    from .terminal import print_table

    console = Console(highlight=False)
    for table in run_tables(result, percentiles):
        print_table(console, table)
    folder = ended.folder.path
    places: dict[str, object] = {"pictures": folder / "images"}
    if (folder / REPORT).exists():  # a full disk may have taken neither
        places["tables"] = f"{folder / REPORT}, {folder / TABLES}"
    if (folder / PLOT).exists():
        places["plot"] = folder / PLOT
    for name, place in (places | {"records": ended.folder.records_path}).items():
        console.print(f"{name + ':':10}{place}", markup=False, soft_wrap=True)
    if ended.folder.mapping_path.exists():
        console.print(f"{'mapping:':10}{ended.folder.mapping_path}", markup=False, soft_wrap=True)
    elif any(failure.kind == "UnknownAdapterError" for failure in result.summary.failures):
        console.print(
            "\nRequests failed because the adapter store does not have the adapters that they\n"
            "name. To serve them with what it has: --adapters alias",
            markup=False,
        )
    if not result.complete:
        done = result.info.num_requests - result.remaining
        console.print(
            f"\nINCOMPLETE: {done} of {result.info.num_requests} requests are on disk. Go on with\n"
            f"  swiftdiff replay --resume {folder}",
            markup=False,
            soft_wrap=True,
        )
