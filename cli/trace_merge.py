"""The command ``swiftdiff trace merge``: several traces as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swiftdiff.errors import ConfigError


def merge(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE", help="JSONL files, two or more.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The new trace; gzip if it ends in .gz.")
    ],
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Request ids begin with their trace's number: 1-, 2-, ...")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Write the requests of several traces as one, in order of arrival.

    Each trace keeps its own times, so all begin together. Two requests with the
    same id are refused; --prefix keeps them apart. Control images of traces in
    other folders than OUT's are copied.

    Exit codes: 0 done; 2 a mistake in the command or in a trace.
    """
    from swiftdiff.trace.transform import merge_traces

    from .counting import counting

    if len(traces) < 2:
        raise ConfigError("name two or more traces to merge")
    with counting("wrote") as watch:
        written = merge_traces(traces, out, prefix=prefix, overwrite=force, watch=watch)
    typer.echo(f"{out}: {written} requests of {len(traces)} traces")
