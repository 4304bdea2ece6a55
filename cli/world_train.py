"""The command ``swiftdiff world train``: runs the embedded world's recipe with a progress bar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from swiftdiff.errors import ConfigError

from .models_train import TrainingBars

_GPU_BATCH_SCALE = 16


def train(  # noqa: PLR0917 - a command's options
    name: Annotated[str, typer.Argument(help="The world to train: bounce.")] = "bounce",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the finished world.")] = Path(
        "results/bounce"
    ),
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for checkpoints; OUT/../NAME-work if not given."),
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time for the whole training; stages then end early. Default: no bound."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on the CPU, a thread each; default: one a core.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes data, initial weights and noise.")] = 0,
    start_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished world to train further.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=1e-6, help="Multiplies every stage's steps; below 1 for a trial.")
    ] = 1.0,
    batch_scale: Annotated[
        int | None,
        typer.Option(min=1, help="Multiplies every stage's batch. Default 1, on a GPU 16."),
    ] = None,
) -> None:
    """Train the embedded world; Ctrl-C, then the same command, goes on.

    Stages: autoencoder, transformer on the true past, transformer on a past of
    its own. Each part is kept in the work folder as it is finished,
    checkpoints every minute. Then judge it: swiftdiff world evaluate OUT.
    """
    if name != "bounce":
        raise ConfigError(f"there is no recipe for {name!r}; there is one for 'bounce'")
    on_cpu = device == "cpu"
    if not on_cpu and workers not in (None, 1):
        raise ConfigError(f"--workers {workers} is for the CPU; on {device} training has one process")
    from swiftdiff.models.loading import find_device
    from swiftdiff.world.bounce.recipe import TrainOptions, train_bounce

    find_device(device)
    options = TrainOptions(
        work_folder=work or out.parent / f"{out.name}-work",
        output_folder=out,
        device=device,
        workers=(workers or os.cpu_count() or 1) if on_cpu else 1,
        seed=seed,
        budget_s=None if budget_minutes is None else budget_minutes * 60,
        scale=scale,
        batch_scale=batch_scale or (1 if on_cpu else _GPU_BATCH_SCALE),
        start_from=start_from,
    )
    with TrainingBars(Console(stderr=True)) as bars:
        train_bounce(options, bars.show)
    print(out)
