"""The command ``swiftdiff models train``: runs the embedded family's recipe with a progress bar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swiftdiff.errors import ConfigError

if TYPE_CHECKING:
    from swiftdiff.models.shapes.trainer import StageProgress


def train(  # noqa: PLR0917 - a command's options
    name: Annotated[str, typer.Argument(help="The family to train: shapes.")] = "shapes",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the finished family.")] = Path(
        "results/shapes"
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
        Path | None, typer.Option(metavar="DIR", help="A finished family to train further.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=1e-6, help="Multiplies every stage's steps; below 1 for a trial.")
    ] = 1.0,
) -> None:
    """Train the embedded family as the shipped weights were trained; Ctrl-C, then the same command, goes on.

    Stages: autoencoder, base (64 pixels, then 128), three ControlNets, eight
    LoRAs. Each part is kept in the work folder as it is finished, checkpoints
    every minute.
    """
    if name != "shapes":
        raise ConfigError(f"there is no recipe for {name!r}; there is one for 'shapes'")
    on_cpu = device == "cpu"
    if not on_cpu and workers not in (None, 1):
        raise ConfigError(f"--workers {workers} is for the CPU; on {device} training has one process")
    from swiftdiff.models.loading import find_device
    from swiftdiff.models.shapes.recipe import TrainOptions, train_family

    find_device(device)
    options = TrainOptions(
        work_folder=work or out.parent / f"{out.name}-work",
        output_folder=out,
        device=device,
        workers=(workers or os.cpu_count() or 1) if on_cpu else 1,
        seed=seed,
        budget_s=None if budget_minutes is None else budget_minutes * 60,
        scale=scale,
        start_from=start_from,
    )
    console = Console(stderr=True)
    with TrainingBars(console) as bars:
        train_family(options, bars.show)
    print(out)


class TrainingBars:
    """One bar a stage, with the loss beside it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}% step {task.fields[step]} loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: StageProgress) -> None:
        """Move a stage's bar."""
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._tasks[progress.stage] = self._progress.add_task(
                progress.stage, total=1.0, step=0, loss=0.0
            )
        self._progress.update(task, completed=progress.fraction, step=progress.step, loss=progress.loss)
