"""Assembles the command ``swiftdiff``: one line a command, and errors as one line instead of a traceback."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import swiftdiff
from swiftdiff.errors import SwiftdiffError

from . import models, trace, world
from .bench import bench
from .bench_gpu import bench_gpu
from .compare import compare
from .init import init
from .replay import replay
from .serve_local import serve_local
from .sweep_k import sweep_k

app = typer.Typer(
    name="swiftdiff",
    help="Serve traces of text-to-image requests with ControlNets and LoRAs, and see what each part costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"swiftdiff {swiftdiff.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


# One line a command. Their modules import what is heavy inside functions, so that --help is quick.
app.command("init")(init)
app.command("replay")(replay)
app.command("bench")(bench)
app.command("bench-gpu")(bench_gpu)
app.command("compare")(compare)
app.command("sweep-k")(sweep_k)
app.command("serve-local")(serve_local)
app.add_typer(models.app, name="models")
app.add_typer(trace.app, name="trace")
app.add_typer(world.app, name="world")


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some requests failed, 2 a mistake of the user, 130 Ctrl-C.

    Args:
        arguments: What follows ``swiftdiff``; None is the process's own arguments.
    """
    try:
        app(args=arguments, prog_name="swiftdiff")
    except SwiftdiffError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
