"""Owns what commands that train share: their options, how many processes work, and a bar a stage."""

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

WorkFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for checkpoints; OUT/../NAME-work if not given."),
]
BudgetMinutes = Annotated[
    float | None,
    typer.Option(min=0.1, help="Time for the whole training; stages then end early. Default: no bound."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes on the CPU, a thread each; default: one a core.")
]
Seed = Annotated[int, typer.Option(min=0, help="Fixes data, initial weights and noise.")]
StepsScale = Annotated[
    float, typer.Option(min=1e-6, help="Multiplies every stage's steps; below 1 for a trial.")
]


def count_workers(device: str, workers: int | None) -> int:
    """Return how many processes train: on the CPU one a core unless told otherwise, on a GPU one.

    Raises:
        ConfigError: Several are asked for on a GPU, or there is no such device.
    """
    from swiftdiff.models.loading import find_device

    if device != "cpu" and workers not in (None, 1):
        raise ConfigError(f"--workers {workers} is for the CPU; on {device} training has one process")
    find_device(device)
    return workers or (os.cpu_count() if device == "cpu" else None) or 1


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
