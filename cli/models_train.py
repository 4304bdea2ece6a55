"""The command ``swiftdiff models train``: runs the embedded family's recipe with a progress bar."""

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


def train(  # noqa: PLR0917 - a command's options
    name: Annotated[str, typer.Argument(help="The family to train: shapes.")] = "shapes",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the finished family.")] = Path(
        "results/shapes"
    ),
    work: WorkFolder = None,
    budget_minutes: BudgetMinutes = None,
    device: Device = "cpu",
    workers: Workers = None,
    seed: Seed = 0,
    start_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished family to train further.")
    ] = None,
    scale: StepsScale = 1.0,
) -> None:
    """Train the embedded family as the shipped weights were trained; Ctrl-C, then the same command, goes on.

    Stages: autoencoder, base (64 pixels, then 128), three ControlNets, eight
    LoRAs. Each part is kept in the work folder as it is finished, checkpoints
    every minute.
    """
    if name != "shapes":
        raise ConfigError(f"there is no recipe for {name!r}; there is one for 'shapes'")
    from swiftdiff.models.shapes.recipe import TrainOptions, train_family

    options = TrainOptions(
        work_folder=work or out.parent / f"{out.name}-work",
        output_folder=out,
        device=device,
        workers=count_workers(device, workers),
        seed=seed,
        budget_s=None if budget_minutes is None else budget_minutes * 60,
        scale=scale,
        start_from=start_from,
    )
    with TrainingBars(Console(stderr=True)) as bars:
        train_family(options, bars.show)
    print(out)
