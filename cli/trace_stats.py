"""The command ``swiftdiff trace stats``: a trace in, its study out as tables, JSON and a page of plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import PrintJson


def stats(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="JSONL file of requests.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write Markdown, CSV, JSON and a page of plots into this folder."),
    ] = None,
    as_json: PrintJson = False,
) -> None:
    """Describe TRACE: arrivals, adapters, reuse, churn, and hit rates of caches.

    Hit rates are exact: LRU at every cache size, LFU at a dozen sizes or more.
    A use is one adapter of one request; each cache holds adapters of equal size.
    One pass over the file, in memory of some bytes a request.

    Exit codes: 0 done; 2 a mistake in the command or in the trace.
    """
    from swiftdiff.report.trace_report import check_free, origin, to_json, write_statistics
    from swiftdiff.trace import read_provenance, read_trace
    from swiftdiff.trace.reader import source_of
    from swiftdiff.trace.statistics import study_trace

    from .counting import counting

    if out is not None:
        check_free(out)
    with counting("read") as watch:
        statistics = study_trace(watch(read_trace(trace)), str(trace))
    source, provenance = source_of(trace), read_provenance(trace)
    if out is not None:
        write_statistics(statistics, source, provenance, out)
    if as_json:
        print(json.dumps(to_json(statistics, source, provenance), indent=2, ensure_ascii=False))
        return

    from rich.console import Console

    from swiftdiff.report.trace_report import PLOT, REPORT, SUMMARY, TABLES
    from swiftdiff.report.trace_tables import trace_tables

    from .terminal import print_table

    console = Console(highlight=False)
    for sentence in origin(provenance):
        console.print(sentence + "\n", markup=False)
    for table in trace_tables(statistics):
        print_table(console, table)
    if out is not None:
        for name, place in {"report": REPORT, "plots": PLOT, "JSON": SUMMARY, "CSV": TABLES}.items():
            console.print(f"{name + ':':8}{out / place}", markup=False, soft_wrap=True)
