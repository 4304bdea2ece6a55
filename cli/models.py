"""The commands ``swiftdiff models``: what models there are, and writing a random-weight one to disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from swiftdiff.models.registry import ModelListing, list_models

from .models_evaluate import evaluate
from .models_train import train

app = typer.Typer(help="List, build, train and evaluate models.", no_args_is_help=True)


@app.command("list")
def show_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the embedded model and the random-weight presets.

    Wherever a model is named, a diffusers folder, a .safetensors file or a hub id
    is accepted too.
    """
    listings = list_models()
    if as_json:
        print(json.dumps([dataclasses.asdict(listing) for listing in listings], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("name", "kind", "parameters", "on disk", "picture", "adapters"):
        right = column in ("parameters", "on disk", "picture")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for listing in listings:
        table.add_row(*_row(listing))
    console = Console()
    console.print(table)
    console.print(
        "A diffusers folder, a .safetensors file or a hub id can be named as a model too.", style="dim"
    )


@app.command("build")
def build(
    name: Annotated[str, typer.Argument(help="A preset: sdxl-thin or sdxl.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; new or empty.")],
    seed: Annotated[int, typer.Option(help="Chooses the random weights.")] = 0,
    loras: Annotated[int, typer.Option(min=0, help="How many LoRAs to write.")] = 8,
) -> None:
    """Write a random-weight preset with its ControlNets and LoRAs: base/, controlnets/ and loras/.

    DIR can then be named as a model, and as the url of an adapter store.
    """
    from swiftdiff.models.family import materialize_preset
    from swiftdiff.models.integrity import read_manifest

    console = Console(stderr=True)
    with console.status(f"building {name}"):
        root = materialize_preset(name, folder, seed, loras=loras)
    print(f"{root}: {_bytes(read_manifest(root).num_bytes)}")


app.command("train")(train)
app.command("evaluate")(evaluate)


def _row(listing: ModelListing) -> tuple[str, ...]:
    if not listing.available:
        return listing.name, listing.kind, "–", "–", "–", "not installed"
    parameters = "–" if listing.parameters is None else f"{listing.parameters / 1e6:,.1f} M"
    size = "–" if listing.native_size is None else f"{listing.native_size}×{listing.native_size}"
    disk = _bytes(listing.disk_bytes) if listing.disk_bytes else "–"
    adapters = f"{len(listing.controlnets)} ControlNets, {len(listing.loras)} LoRAs"
    return listing.name, listing.kind, parameters, disk, size, adapters


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
