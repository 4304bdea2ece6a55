"""Owns what commands that measure share: a line on stderr, Ctrl-C, a report, exit codes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import typer

from swiftdiff.engine.measuring import MeasuringObserver, SessionEnd
from swiftdiff.errors import StorageError

from .status_line import StatusLine

EXIT_FAILED, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130
_LOG_EVERY_S = 60.0

Folder = TypeVar("Folder")
Result = TypeVar("Result")


def report_ended(
    ended: SessionEnd[Folder], write: Callable[..., Result], read: Callable[..., Result]
) -> tuple[SessionEnd[Folder], Result]:
    """Write a session's report; where the disk takes no more, return at least what can be read.

    Args:
        ended: How the session ended.
        write: Takes the folder and ``complete``, writes the report and returns the result.
        read: The same without writing.

    Raises:
        StorageError: The folder is damaged.
    """
    complete = ended.outcome == "complete"
    try:
        return ended, write(ended.folder, complete=complete)
    except StorageError as error:
        ended = dataclasses.replace(ended, outcome="stopped", reason=ended.reason or error)
        return ended, read(ended.folder, complete=complete)


@contextmanager
def exiting_on_ctrl_c() -> Iterator[None]:
    """End the command with 130 where Ctrl-C comes through: nothing was there yet to be reported."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def tell_if_stopped(reason: Exception | None) -> None:
    """Say why a session stopped early, if it did."""
    if reason is not None:
        typer.secho(f"error: stopped early: {reason}", fg="red", err=True)


def print_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def exit_code(outcome: str, *, failed: bool) -> int:
    """Return the exit code of a measurement that ended so, and of which something failed or nothing."""
    if outcome == "interrupted":
        return EXIT_INTERRUPTED
    if outcome == "stopped":
        return EXIT_MISTAKE
    return EXIT_FAILED if failed else 0


class MeasuringProgress(MeasuringObserver):
    """A line on stderr: what goes on, how much is done, and the time left; in a log file, a line a minute."""

    def __init__(self) -> None:
        self._line = StatusLine()
        self._counted = ""
        self._logged_s = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.clear()

    def noted(self, message: str) -> None:
        """Print a line that stays."""
        self._line.note(message)

    def doing(self, what: str) -> None:
        """Show what goes on."""
        self._line.draw(f"{self._counted}{what}")

    def progressed(self, done: int, total: int, left_s: float | None) -> None:
        """Count, and guess the time left."""
        left = "" if left_s is None else f", about {_minutes(left_s)} left"
        self._counted = f"{done}/{total}{left}: "
        if not self._line.is_live and time.monotonic() - self._logged_s > _LOG_EVERY_S:
            self._logged_s = time.monotonic()
            self._line.note(self._counted.removesuffix(": "))


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min" if minutes >= 10 else f"{minutes}:{rest:02}"
