"""Assembles ``swiftdiff world``: one line a command."""

from __future__ import annotations

import typer

from .world_bench import bench
from .world_convert import convert
from .world_drift import drift
from .world_evaluate import evaluate
from .world_generate import generate
from .world_stream import stream
from .world_train import train

app = typer.Typer(help="Make long, steerable video block by block (Inferix).", no_args_is_help=True)

# One line a command. Their modules import what is heavy inside functions, so that --help is quick.
app.command("bench")(bench)
app.command("convert")(convert)
app.command("drift")(drift)
app.command("evaluate")(evaluate)
app.command("generate")(generate)
app.command("stream")(stream)
app.command("train")(train)
