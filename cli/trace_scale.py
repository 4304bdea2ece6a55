"""The command ``swiftdiff trace scale``: the same requests, faster or slower."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from swiftdiff.errors import ConfigError


def scale(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="JSONL file of requests.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The new trace; gzip if it ends in .gz.")
    ],
    speed: Annotated[
        float | None, typer.Option(metavar="X", help="Requests arrive X times as fast; below 1 is slower.")
    ] = None,
    request_rate: Annotated[
        float | None, typer.Option(metavar="R", help="Or: as fast as gives R requests a second in the mean.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Write TRACE with all arrivals divided by one number.

    The pattern stays: gaps keep their proportions. The mean rate is that from
    the first arrival to the last. Control images are copied if OUT lies in
    another folder.

    Exit codes: 0 done; 2 a mistake in the command or in the trace.
    """
    from swiftdiff.trace.transform import mean_rate, scale_trace

    from .counting import counting

    if (speed is None) == (request_rate is None):
        raise ConfigError("say how fast: --speed or --request-rate, but not both")
    for name, value in (("--speed", speed), ("--request-rate", request_rate)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError.for_field(name, value, "a number above 0")
    if speed is None:
        assert request_rate is not None
        with counting("read") as watch:
            speed = request_rate / mean_rate(trace, watch)
    with counting("wrote") as watch:
        written = scale_trace(trace, out, speed, overwrite=force, watch=watch)
    typer.echo(f"{out}: {written} requests, {speed:g} times as fast")
