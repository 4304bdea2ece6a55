"""The command ``swiftdiff world convert``: a checkpoint of Self-Forcing in, a diffusers folder out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="Such as self_forcing_dmd.pt; .pt or .safetensors.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder: not there yet, or empty.")],
    *,
    recipe: Annotated[
        Literal["self-forcing", "causvid"], typer.Option(help="How it was distilled: its steps.")
    ] = "self-forcing",
    weights: Annotated[
        Literal["ema", "raw"] | None,
        typer.Option(help="The average over training, or its last step. Default: the average, if there."),
    ] = None,
    vae: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Wan's autoencoder, a diffusers folder: copied.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Features by prompt, .safetensors: copied, in place of a text encoder."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Of the weights. Default: as they are."),
    ] = None,
    head_dim: Annotated[
        int, typer.Option(min=1, metavar="N", help="Width of an attention head; shapes do not tell it.")
    ] = 128,
    shard_mb: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Most of one file of weights, in 10^6 bytes.")
    ] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Turn a local checkpoint into a folder that swiftdiff and diffusers load.

    Only weights are read from it, never code, and never more than one file of
    the output is in memory. Every weight must be there in its shape, and nothing
    else: a truncated or foreign checkpoint is refused. Checkpoints do not tell
    the size of pictures: world.json says 480 by 832, and may be edited.

    Exit codes: 0 done; 2 a mistake in the command, the file, or a full disk;
    130 Ctrl-C, which leaves nothing behind.
    """
    from swiftdiff.world.convert.conversion import convert as convert_checkpoint

    done = convert_checkpoint(
        checkpoint,
        out,
        recipe=recipe,
        weights=weights,
        vae=vae,
        embeddings=embeddings,
        dtype=dtype,
        head_dim=head_dim,
        shard_bytes=shard_mb * 1_000_000,
    )
    if as_json:
        values = {
            "folder": str(done.folder),
            "weights": done.weights,
            "parameters": done.parameters,
            "bytes": done.num_bytes,
            "files": done.shards,
            "missing": list(done.missing),
            "config": done.config,
        }
        print(json.dumps(values, indent=2))
        return
    files = "1 file" if done.shards == 1 else f"{done.shards} files"
    typer.echo(
        f"{done.folder}: {done.parameters:,} parameters ({done.weights}), "
        f"{done.num_bytes / 1e6:,.1f} MB in {files}"
    )
    if done.missing:
        typer.echo(f"still missing to run it: {' and '.join(done.missing)} (--vae, --embeddings)")
