"""Owns what sessions of measuring share: who is told how they go, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from swiftdiff.errors import SwiftdiffError

Folder = TypeVar("Folder")


class MeasuringObserver:
    """Is told how a measurement goes; this one keeps quiet. Made to be overridden."""

    def noted(self, message: str) -> None:
        """Something that its user should read."""

    def doing(self, what: str) -> None:
        """What goes on now."""

    def progressed(self, done: int, total: int, left_s: float | None) -> None:
        """So much is measured and on disk; the rest takes about so long, if that is known."""


@dataclass(frozen=True)
class SessionEnd(Generic[Folder]):
    """How a session of work on a folder ended.

    Attributes:
        folder: What was worked on.
        outcome: ``complete``: all is done or has failed; ``interrupted``: by Ctrl-C; ``stopped``: it could
            not go on.
        reason: Why it stopped, or None.
    """

    folder: Folder
    outcome: Literal["complete", "interrupted", "stopped"]
    reason: SwiftdiffError | None = None
