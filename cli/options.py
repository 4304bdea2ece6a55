"""Owns the options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PrintJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
SummaryJson = Annotated[bool, typer.Option("--json", help="Print summary.json on stdout and nothing else.")]
ResumeBench = Annotated[
    Path | None, typer.Option("--resume", metavar="DIR", help="Go on with an interrupted benchmark.")
]
BenchSetting = Annotated[
    list[str] | None,
    typer.Option(metavar="nC/mL", help="ControlNets and LoRAs; may be repeated. Default: the paper's seven."),
]
Host = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
]
Port = Annotated[int | None, typer.Option(metavar="PORT", help="0 is any free one. Default: 8288.")]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Holds the key that clients must send as a bearer token."),
]
