"""The command ``swiftdiff trace validate``: everything that is wrong in a trace, not only the first error."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .counting import reading
from .options import PrintJson

if TYPE_CHECKING:
    from swiftdiff.trace.findings import Finding, TraceReport

EXIT_WRONG = 1
WIDTH = 80


def validate(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="JSONL file of requests.")],
    *,
    max_errors: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N errors. Default: read all.")
    ] = None,
    as_json: PrintJson = False,
) -> None:
    """Report everything that is wrong in TRACE, by kind, and go on after bad lines.

    Besides what replay refuses: requests that no system can serve, and control
    images that are missing. Warnings are what may be meant.

    Exit codes: 0 no errors; 1 errors; 2 a mistake in the command, or a file that
    cannot be opened.
    """
    from swiftdiff.trace.check import check_trace

    with reading() as progress:
        report = check_trace(trace, max_errors, progress)
    if as_json:
        print(json.dumps(_to_json(report), indent=2, ensure_ascii=False))
    else:
        _print(report)
    if report.count("error"):
        raise typer.Exit(EXIT_WRONG)


def _to_json(report: TraceReport) -> dict[str, Any]:
    counts = {"num_errors": report.count("error"), "num_warnings": report.count("warning")}
    return asdict(report) | {"path": str(report.path)} | counts


def _print(report: TraceReport) -> None:
    for finding in report.findings:
        _print_finding(finding)
    read = f"{_counted(report.num_requests, 'request')} in {_counted(report.num_lines, 'line')}"
    wrong = f"{_counted(report.count('error'), 'error')}, {_counted(report.count('warning'), 'warning')}"
    typer.echo(f"{report.path}: {read}; {wrong}")
    if not report.complete:
        typer.echo(f"INCOMPLETE: what follows line {report.num_lines:,} was not checked")


def _print_finding(finding: Finding) -> None:
    is_error = finding.severity == "error"
    head = textwrap.fill(f"{finding.severity}: {_one_line(finding.kind)}", WIDTH)
    typer.secho(head, fg="red" if is_error else "yellow")
    if finding.lines:
        more = ", ..." if finding.count > len(finding.lines) else ""
        lines = ", ".join(map(str, finding.lines)) + more
        typer.echo(f"    {finding.count:,} × in line {lines}")
    typer.echo(
        textwrap.fill(_one_line(finding.example), WIDTH, initial_indent="    ", subsequent_indent="    ")
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
