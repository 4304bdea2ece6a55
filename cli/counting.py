"""Shows how many requests went by while a command works on a trace; the line is gone when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swiftdiff.request import ImageRequest

_EVERY = 1000


@contextmanager
def counting(action: str) -> Iterator[Callable[[Iterable[ImageRequest]], Iterator[ImageRequest]]]:
    """Give what passes requests on and counts them on stderr; nothing is shown in a log file.

    Args:
        action: What is done to them, such as ``read``.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True, refresh_per_second=4
    ) as progress:
        task = progress.add_task("")

        def count(requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
            for number, request in enumerate(requests):
                if number % _EVERY == 0:
                    progress.update(task, description=f"{action} {number:,} requests")
                yield request

        yield count
