"""The command ``swiftdiff init``: puts editable copies of the shipped configs and traces into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from swiftdiff.resources import copy_workloads


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put them; made if missing.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")] = False,
) -> None:
    """Copy the shipped system configs, traces and control images into DIR, to edit them."""
    written = copy_workloads(folder, overwrite=force)
    console = Console(highlight=False, soft_wrap=True)
    for file in written:
        if file.suffix in {".toml", ".jsonl"}:
            console.print(str(file), markup=False)
    pictures = sum(file.suffix == ".png" for file in written)
    console.print(f"{len(written)} files written, {pictures} of them control images. Try:")
    trace, config = folder / "quickstart.jsonl", folder / "configs" / "diffusers.toml"
    console.print(f"  swiftdiff replay {trace} --config {config}", markup=False)
