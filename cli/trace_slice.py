"""The command ``swiftdiff trace slice``: a part of a trace, by time or by count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swiftdiff.errors import ConfigError

if TYPE_CHECKING:
    from swiftdiff.trace.transform import CountSpan, TimeSpan


def slice_(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="JSONL file of requests.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The part; gzip if it ends in .gz.")
    ],
    from_s: Annotated[
        float | None, typer.Option("--from", metavar="S", help="Requests that arrive at S seconds or later,")
    ] = None,
    to_s: Annotated[
        float | None, typer.Option("--to", metavar="S", help="and before S seconds, on the trace's clock.")
    ] = None,
    start: Annotated[int | None, typer.Option(metavar="N", help="Or: leave out the first N requests")] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="and take the N after them.")] = None,
    with_loras: Annotated[bool, typer.Option("--with-loras", help="Of the requests that use LoRAs.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Of the first of every N of them.")] = 1,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Keep arrivals. Default: the first request arrives at 0.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Write a part of TRACE as a trace of its own.

    --count 100 --with-loras --every 20 spreads 100 requests with LoRAs over a
    long trace: more different ones than in 100 that follow each other, and fewer
    reuses.

    Control images are copied if OUT lies in another folder.

    Exit codes: 0 done; 2 a mistake in the command or in the trace.
    """
    from swiftdiff.trace.transform import Selection, slice_trace

    from .counting import counting

    span = _span(from_s, to_s, start, count)
    with counting("wrote") as watch:
        selection = Selection(with_loras, every)
        written = slice_trace(
            trace, out, span, selection, keep_times=keep_times, overwrite=force, watch=watch
        )
    typer.echo(f"{out}: {written} requests")


def _span(
    from_s: float | None, to_s: float | None, start: int | None, count: int | None
) -> TimeSpan | CountSpan:
    from swiftdiff.trace.transform import CountSpan, TimeSpan

    by_time = from_s is not None or to_s is not None
    by_count = start is not None or count is not None
    if by_time == by_count:
        raise ConfigError("say which part: --from and --to, or --start and --count, but not both")
    if by_time:
        span = TimeSpan(from_s if from_s is not None else 0.0, to_s if to_s is not None else math.inf)
        if not 0 <= span.from_s < math.inf:
            raise ConfigError.for_field("--from", from_s, "a number of seconds, at least 0")
        if not span.to_s > span.from_s:
            raise ConfigError.for_field("--to", to_s, f"more than --from, {span.from_s:g}")
        return span
    if start is not None and start < 0:
        raise ConfigError.for_field("--start", start, "at least 0")
    if count is not None and count < 1:
        raise ConfigError.for_field("--count", count, "at least 1")
    return CountSpan(start or 0, count)
