"""Assembles ``swiftdiff trace``: one line a command."""

from __future__ import annotations

import typer

from .trace_import import import_

app = typer.Typer(help="Import, generate, describe and change traces.", no_args_is_help=True)

# One line a command. Their modules import what is heavy inside functions, so that --help is quick.
app.command("import")(import_)
