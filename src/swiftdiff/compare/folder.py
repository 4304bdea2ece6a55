"""Owns a comparison's folder: what lies in it, and which of its runs are finished.

::

    compare.json           what is measured, by which it is resumed
    measured.jsonl         one line a run that was tried: when, what else used the machine, why it failed
    <system>/<repeat>/     the runs, each as swiftdiff replay writes it
    comparison.md tables/  what they come to, and report.html
    comparison.json        the same for programs, written last
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from swiftdiff.compare.plan import ComparePlan, slug
from swiftdiff.errors import StorageError
from swiftdiff.files import append_line, cannot, check_free, parse_line, read_model, write_whole

PLAN = "compare.json"
MEASURED = "measured.jsonl"


class Attempt(BaseModel):
    """How one run went: a line of ``measured.jsonl``.

    Attributes:
        system: Its name.
        place: Folder of the run below the comparison's.
        started_at: ISO 8601, with time zone.
        wall_s: Seconds from the start of its process to its end, loading included.
        load_1min: The machine's load average before it.
        other_cpu_s: CPU seconds of other processes meanwhile.
        outcome: How it ended.
        reason: Why it failed, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    place: str
    started_at: str
    wall_s: float
    load_1min: float
    other_cpu_s: float
    outcome: Literal["complete", "failed"]
    reason: str | None = None

    @property
    def other_share(self) -> float:
        """Cores that other processes kept busy."""
        return self.other_cpu_s / self.wall_s if self.wall_s > 0 else 0.0


class CompareFolder:
    """A comparison's folder on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._measured = path / MEASURED

    @classmethod
    def create(cls, path: Path, plan: ComparePlan) -> CompareFolder:
        """Make the folder.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        check_free(path, "comparison" if is_comparison(path) else None)
        write_whole(path / PLAN, plan.model_dump_json(indent=2).encode() + b"\n")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> CompareFolder:
        """Take up a folder that `create` made.

        Raises:
            StorageError: It is none.
        """
        if not is_comparison(path):
            raise StorageError(f"{path} is no comparison's folder: it has no {PLAN}")
        return cls(path)

    def read_plan(self) -> ComparePlan:
        """Return ``compare.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.path / PLAN, ComparePlan)

    def system_folder(self, system: str) -> Path:
        """Return the folder of a system's repeats."""
        return self.path / slug(system)

    def is_finished(self, place: Path) -> bool:
        """Return whether a run ended with every request served or failed."""
        try:
            summary = json.loads((place / "summary.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(summary, dict) and summary.get("complete") is True

    def clear(self, place: Path) -> None:
        """Remove what an unfinished run left behind: it is measured anew, in its turn.

        Raises:
            StorageError: It cannot be removed.
        """
        try:
            if place.exists():
                shutil.rmtree(place)
        except OSError as error:
            raise cannot("remove", place, error) from error

    def append(self, attempt: Attempt) -> None:
        """Add a line to ``measured.jsonl``.

        Raises:
            StorageError: It cannot be written.
        """
        append_line(self._measured, attempt.model_dump_json(exclude_none=True))

    def read_attempts(self) -> list[Attempt]:
        """Return how runs went, of attempts at one run the last; a line that a crash tore is passed over."""
        attempts: dict[str, Attempt] = {}
        lines = self._measured.read_bytes().splitlines() if self._measured.is_file() else []
        for line in lines:
            attempt = parse_line(Attempt, line)
            if attempt is None:
                continue
            attempts.pop(attempt.place, None)
            attempts[attempt.place] = attempt
        return list(attempts.values())


def is_comparison(path: Path) -> bool:
    """Return whether a folder is one that `CompareFolder.create` made."""
    return (path / PLAN).is_file()
