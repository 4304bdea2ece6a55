"""Assembles ``swiftdiff trace``: one line a command."""

from __future__ import annotations

import typer

from .trace_fit import fit
from .trace_generate import generate
from .trace_import import import_
from .trace_merge import merge
from .trace_scale import scale
from .trace_slice import slice_
from .trace_stats import stats
from .trace_validate import validate

app = typer.Typer(help="Import, generate, describe and change traces.", no_args_is_help=True)

# One line a command. Their modules import what is heavy inside functions, so that --help is quick.
app.command("fit")(fit)
app.command("generate")(generate)
app.command("stats")(stats)
app.command("import")(import_)
app.command("slice")(slice_)
app.command("scale")(scale)
app.command("merge")(merge)
app.command("validate")(validate)
