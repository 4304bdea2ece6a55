"""The command ``swiftdiff trace import``: someone else's trace in, ours out, and what was made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swiftdiff.errors import ConfigError

from .counting import reading
from .options import PrintJson

if TYPE_CHECKING:
    from swiftdiff.trace.importers import ImportOptions
    from swiftdiff.trace.importers.run import ImportSummary

EXIT_INTERRUPTED = 130


def import_(
    format_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="gentd26, katz, mooncake or csv.", show_default=False)
    ],
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="The file, plain or gzip; for gentd26 also its folder.")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="TRACE", help="JSONL file to write; gzip if it ends in .gz."),
    ],
    seed: Annotated[int, typer.Option(metavar="N", help="Of all that is made up.")] = 0,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Keep the first N requests.")] = None,
    sort: Annotated[bool, typer.Option("--sort", help="Sort by arrival; else disorder is an error.")] = False,
    time_unit: Annotated[
        str | None, typer.Option(metavar="UNIT", help="s, ms, us or ns. Default: detected.")
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(metavar="R", help="Random arrivals, R a second, for a source without times."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Keep one base model's requests. Default: all, as if of one model."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Denoising steps where the source has none.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Cut denoising steps to N, for a smaller machine.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(metavar="N", help="Cut pictures a request to N.")] = None,
    guidance: Annotated[
        float | None, typer.Option(metavar="G", help="Guidance scale where the source has none.")
    ] = None,
    width: Annotated[int | None, typer.Option(metavar="PX", help="Width where the source has none.")] = None,
    height: Annotated[
        int | None, typer.Option(metavar="PX", help="Height where the source has none.")
    ] = None,
    slo_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Latency to be kept where the source has none.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A prompt a line, used in turn. Default: made-up scenes."),
    ] = None,
    controlnet_share: Annotated[
        float | None,
        typer.Option(metavar="F", help="Share of requests, 0 to 1, to get a ControlNet if none are listed."),
    ] = None,
    scene: Annotated[
        str | None, typer.Option(metavar="A|B", help="katz: keep one service. Default: both.")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="rows|uses",
            help="gentd26: whole requests at the arrivals' times (rows, the default), or arrivals with the"
            " next used LoRAs (uses).",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="FIELD=COLUMN,…", help="csv: which column is what. Default: named as fields."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite TRACE.")] = False,
    as_json: PrintJson = False,
) -> None:
    """Make a trace of a production trace in another format.

    What the source lacks (prompts, sizes, control images, adapters) is filled in,
    what never ran is dropped, and both are said: here and in the trace's first
    line. Control images go into a folder beside the trace.

    Exit codes: 0 done; 2 a mistake in the command or the source, then nothing is
    written; 130 Ctrl-C.
    """
    from swiftdiff.trace.importers.run import import_trace

    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another -o or use --force")
    options = _options(
        seed=seed,
        limit=limit,
        sort=sort,
        time_unit=time_unit,
        request_rate=request_rate,
        base_model=base_model,
        steps=steps,
        max_steps=max_steps,
        max_images=max_images,
        guidance=guidance,
        width=width,
        height=height,
        slo_ms=slo_ms,
        prompts=prompts,
        controlnet_share=controlnet_share,
        scene=scene,
        join=join,
        columns=_columns(columns),
    )
    try:
        with reading() as progress:
            summary = import_trace(format_name, source, out, options, progress)
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing is written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        print(json.dumps(_to_json(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary)


def _options(**given: Any) -> ImportOptions:
    from pydantic import ValidationError

    from swiftdiff.trace.importers import ImportOptions
    from swiftdiff.validation import describe

    try:
        return ImportOptions(**given)
    except ValidationError as error:
        field, problem = describe(error, ImportOptions).split(" ", 1)
        raise ConfigError(f"--{field.replace('_', '-')} {problem}") from error


def _columns(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    columns = {field.strip(): column.strip() for field, _, column in pairs}
    if len(columns) < len(pairs) or not all(columns) or not all(columns.values()):
        allowed = "field=column pairs, each field once, such as timestamp=time,loras=lora_ids"
        raise ConfigError.for_field("--columns", text, allowed)
    return columns


def _to_json(summary: ImportSummary) -> dict[str, Any]:
    return {
        "trace": str(summary.trace),
        "num_requests": summary.num_requests,
        "num_images": summary.num_images,
        "num_control_images": summary.num_control_images,
        "duration_s": summary.duration_s,
        "provenance": summary.provenance.model_dump(mode="json"),
    }


def _print(summary: ImportSummary) -> None:
    from rich.console import Console

    from swiftdiff.report.tables import Column, Table

    from .terminal import print_table

    console = Console(highlight=False)
    provenance = summary.provenance
    kept = (
        ("requests", f"{summary.num_requests:,d}"),
        ("pictures asked for", f"{summary.num_images:,d}"),
        ("control images drawn", f"{summary.num_control_images:,d}"),
        ("hours from first to last", f"{summary.duration_s / 3600:,.1f}"),
    )
    reasons, fields = tuple(provenance.dropped.items()), tuple(provenance.filled_in.items())
    tables = (
        Table("imported", "Imported", (Column(""), Column("")), kept),
        Table("dropped", "Dropped", (Column("reason"), Column("requests", ",d")), reasons),
        Table("filled_in", "Filled in", (Column("field"), Column("how")), fields),
    )
    for table in tables:
        if table.rows:
            print_table(console, table)
    console.print(f"trace: {summary.trace}", markup=False, soft_wrap=True)
