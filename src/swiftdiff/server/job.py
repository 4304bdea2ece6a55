"""Owns one accepted request on its way: what it asks for, who waits for it, and how it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swiftdiff.request import ImageRequest
from swiftdiff.server.errors import HttpError, RequestCancelled
from swiftdiff.server.schema import EngineName, HowServed
from swiftdiff.systems.switches import RequestSwitches


@dataclass(frozen=True)
class Partial:
    """A picture of an unfinished step: its number among those that are sent, and base64 of a PNG file."""

    index: int
    step: int
    num_steps: int
    picture: str
    size: str


@dataclass(frozen=True)
class Finished:
    """The pictures, base64 of PNG files, and how they came about; the access log has them already."""

    pictures: tuple[str, ...]
    size: str
    how: HowServed


@dataclass(frozen=True)
class Failed:
    """The request failed; the access log says so already."""

    error: HttpError


Event = Partial | Finished | Failed


@dataclass(eq=False)
class Job:
    """One accepted request.

    Attributes:
        request: What it asks for.
        arrived_s: When it arrived, by the server's clock.
        deadline_s: When it is given up, by the same clock.
        tell: Takes what happens to it, from any thread.
        engine: That it asks for, or None.
        switches: Its own, or None.
        num_partials: Pictures of unfinished steps that it wants.
        files: Its control images, deleted by `discard_files`.
        started_s: When its service began, or None.
        overtaken: How often a later request was served before it.
        wake: Ends what its service waits for, when nobody waits for it any more.
        stages: Returns seconds by stage of its service so far; from any thread.
    """

    request: ImageRequest
    arrived_s: float
    deadline_s: float
    tell: Callable[[Event], None]
    engine: EngineName | None = None
    switches: RequestSwitches | None = None
    num_partials: int = 0
    files: tuple[Path, ...] = ()
    started_s: float | None = None
    overtaken: int = 0
    wake: Callable[[], None] = lambda: None
    stages: Callable[[], dict[str, float]] = dict
    _over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def conclude(self) -> bool:
        """End it; true for the one caller who is first and who therefore writes its record and answers."""
        with self._lock:
            was_over, self._over = self._over, True
        return not was_over

    @property
    def wanted_by_s(self) -> float:
        """When its pictures are wanted, by the server's clock: after its ``slo_ms`` if that is sooner."""
        slo_ms = self.request.slo_ms
        return self.deadline_s if slo_ms is None else min(self.deadline_s, self.arrived_s + slo_ms / 1000)

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended: nobody waits for its pictures."""
        return self._over

    def check_wanted(self) -> None:
        """Raise RequestCancelled if nobody waits for it."""
        if self._over:
            raise RequestCancelled(f"request {self.request.request_id}: nobody waits for it any more")

    def partial_index(self, step: int, num_steps: int) -> int | None:
        """Return which picture of an unfinished step is due before a step, or None.

        They are spread evenly: of 3 pictures in 20 steps the first comes after 5.
        """
        count = min(self.num_partials, num_steps - 1)
        due = [round(num_steps * (index + 1) / (count + 1)) for index in range(count)]
        return due.index(step) if step in due else None

    def discard_files(self) -> None:
        """Delete its control images."""
        for file in self.files:
            file.unlink(missing_ok=True)
