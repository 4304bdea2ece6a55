"""Shows on stderr how far a command on a trace has come; gone when it ends, and not shown in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from swiftdiff.request import ImageRequest
    from swiftdiff.trace.files import Progress as Report

_EVERY = 1000


@contextmanager
def counting(
    action: str, total: int | None = None
) -> Iterator[Callable[[Iterable[ImageRequest]], Iterator[ImageRequest]]]:
    """Give what passes requests on and counts them.

    Args:
        action: What is done to them, such as ``read``.
        total: How many there will be, if that is known.
    """
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    times = (TimeElapsedColumn(),) if total is None else (TimeRemainingColumn(), TextColumn("left"))
    with _line(SpinnerColumn(), TextColumn("{task.description}"), *times) as progress:
        task = progress.add_task("", total=total)
        of = "" if total is None else f" of {total:,}"

        def count(requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
            for number, request in enumerate(requests):
                if number % _EVERY == 0:
                    description = f"{action} {number:,}{of} requests"
                    progress.update(task, completed=number, description=description)
                yield request

        yield count


@contextmanager
def reading() -> Iterator[Report]:
    """Give what is told how many bytes of which file are read."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(None), DownloadColumn())
    with _line(*columns, TimeRemainingColumn()) as bar:
        tasks: dict[Path, TaskID] = {}

        def progress(path: Path, position: int) -> None:
            if path not in tasks:
                tasks[path] = bar.add_task(path.name[-30:], total=path.stat().st_size)
            bar.update(tasks[path], completed=position)

        yield progress


def _line(*columns: ProgressColumn) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True, refresh_per_second=4
    )
