"""Assembles ``swiftdiff world``: one line a command."""

from __future__ import annotations

import typer

from .world_generate import generate
from .world_stream import stream

app = typer.Typer(help="Make long, steerable video block by block (Inferix).", no_args_is_help=True)

# One line a command. Their modules import what is heavy inside functions, so that --help is quick.
app.command("generate")(generate)
app.command("stream")(stream)
