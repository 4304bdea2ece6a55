"""Shows a replay in the terminal: live progress while it runs, its tables when it has ended."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from swiftdiff.config import ServingConfig
from swiftdiff.engine.queue import MAX_HELD
from swiftdiff.engine.session import SessionObserver
from swiftdiff.report.tables import Table
from swiftdiff.request import RequestRecord


class ProgressObserver(SessionObserver):
    """A line on stderr with what is done, what waits and the time left; it is gone when the replay ends."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,  # a log file gets neither frames nor blank lines
            transient=True,
            refresh_per_second=2,  # redrawing takes time from the requests on a small machine
        )
        self._task = self._progress.add_task("starting", total=None)
        self._failed = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def loading(self, config: ServingConfig) -> None:
        """Say what is being loaded."""
        self._progress.update(self._task, description=f"loading {Path(config.model).name}")

    def started(self, folder: Path, num_requests: int, done: int) -> None:
        """Begin to count; what earlier sessions did is not part of the speed."""
        self._progress.reset(
            self._task,
            total=num_requests - done,
            completed=0,
            description=f"serving into {folder.name[-24:]}",
        )

    def recorded(self, record: RequestRecord, waiting: int) -> None:
        """Count a request."""
        if record.warmup:
            return
        self._failed += record.status == "failed"
        queue = f"{waiting}+" if waiting >= MAX_HELD else str(waiting)
        failed = f", {self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=1, description=f"{queue} waiting{failed}")


def print_table(console: Console, table: Table) -> None:
    """Print a table that fits 80 columns."""
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(table.columns):
        is_number = bool(column.format)
        shown.add_column(
            column.name,
            justify="right" if is_number else "left",
            no_wrap=index == 0,
            overflow="fold",
        )
    for row in table.shown():
        shown.add_row(*(_escape(cell) for cell in row))
    console.print(shown)
    if table.note:
        console.print(table.note, style="dim", markup=False)
    console.print()


def _escape(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)
