"""The command ``swiftdiff world train``: runs the embedded world's recipe with a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from swiftdiff.errors import ConfigError

from .training import (
    BudgetMinutes,
    Device,
    Seed,
    StepsScale,
    TrainingBars,
    Workers,
    WorkFolder,
    count_workers,
)

_GPU_BATCH_SCALE = 16


def train(  # noqa: PLR0917 - a command's options
    name: Annotated[str, typer.Argument(help="The world to train: bounce.")] = "bounce",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the finished world.")] = Path(
        "results/bounce"
    ),
    work: WorkFolder = None,
    budget_minutes: BudgetMinutes = None,
    device: Device = "cpu",
    workers: Workers = None,
    seed: Seed = 0,
    start_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished world to train further.")
    ] = None,
    scale: StepsScale = 1.0,
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
    from swiftdiff.world.bounce.recipe import TrainOptions, train_bounce

    options = TrainOptions(
        work_folder=work or out.parent / f"{out.name}-work",
        output_folder=out,
        device=device,
        workers=count_workers(device, workers),
        seed=seed,
        budget_s=None if budget_minutes is None else budget_minutes * 60,
        scale=scale,
        batch_scale=batch_scale or (1 if device == "cpu" else _GPU_BATCH_SCALE),
        start_from=start_from,
    )
    with TrainingBars(Console(stderr=True)) as bars:
        train_bounce(options, bars.show)
    print(out)
