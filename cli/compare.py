"""The command ``swiftdiff compare``: runs in, one table with a column a system out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swiftdiff.report.comparison import Comparison

SYSTEMS_PER_TABLE = 4  # what 80 columns hold


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders that swiftdiff replay made, two or more.")
    ],
    *,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="System or folder to measure against. Default: stock diffusers, or the first.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write Markdown, CSV and JSON into this folder.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare also what differs in more than the system.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Show runs of one trace side by side: times, speed-ups, stages and pictures.

    Requests and pictures are paired with the baseline's. Runs that differ in
    trace, model, load, adapter store or hardware are refused, and so are
    incomplete ones.

    Exit codes: 0 done; 2 a mistake in the command or its files, or runs that
    should not be compared.
    """
    from swiftdiff.report.comparison import compare_runs
    from swiftdiff.report.comparison_report import check_free, to_json, write_comparison

    if out is not None:
        check_free(out)
    comparison = compare_runs(runs, baseline=baseline, force=force)
    if out is not None:
        write_comparison(comparison, out)
    if as_json:
        print(json.dumps(to_json(comparison), indent=2, ensure_ascii=False))
    else:
        _print(comparison, out)


def _print(comparison: Comparison, out: Path | None) -> None:
    from rich.console import Console

    from swiftdiff.report.comparison_report import REPORT, TABLES, warnings
    from swiftdiff.report.comparison_tables import comparison_tables, split_columns

    from .terminal import print_table

    console = Console(highlight=False)
    for warning in warnings(comparison):
        console.print(warning, style="yellow", markup=False)
    if comparison.obstacles or comparison.caveats:
        console.print()
    for table in comparison_tables(comparison):
        for part in split_columns(table, SYSTEMS_PER_TABLE):
            print_table(console, part)
    places = {run.label: run.folder / "report.md" for run in comparison.runs}
    if out is not None:
        places["comparison"] = out / REPORT
        places["tables"] = out / TABLES
    for name, place in places.items():
        console.print(f"{name}: {place}", markup=False, soft_wrap=True)
