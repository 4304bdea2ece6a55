"""Owns the timing of one request's stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swiftdiff.telemetry.timeline import OFF, Timeline


class StageTimer:
    """Adds up seconds by stage name; a stage that is entered twice counts both times.

    Args:
        synchronize: Called before each reading, so that a device's queued work is counted in the stage that
            queued it.
        timeline: Gets a span for each `stage`; its clock is the timer's too.

    Attributes:
        seconds: What each stage took so far.
        timeline: As it was given.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = lambda: None,
        timeline: Timeline = OFF,
    ) -> None:
        self.seconds: dict[str, float] = {}
        # Name, beginning and the sum of all stages then; the outermost first.
        self._under_way: tuple[tuple[str, float, float], ...] = ()
        self._synchronize = synchronize
        self.timeline = timeline

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, also when it raises."""
        began = self.now()
        with self.under_way(name, began):
            try:
                yield
            finally:
                self.add_span(name, began, self.now())

    @contextmanager
    def under_way(self, name: str, began_s: float) -> Iterator[None]:
        """Let `so_far` count a stage that is added once it has ended, less the stages in it."""
        outer = self._under_way
        self._under_way = (*outer, (name, began_s, sum(self.seconds.values())))
        try:
            yield
        finally:
            self._under_way = outer

    def so_far(self) -> dict[str, float]:
        """Return seconds by stage name, with what the stages under way took until now; from any thread."""
        seconds, now_s = dict(self.seconds), self.timeline.now()
        for name, began_s, before_s in reversed(self._under_way):
            own_s = now_s - began_s - (sum(seconds.values()) - before_s)
            seconds[name] = seconds.get(name, 0.0) + max(0.0, own_s)
        return seconds

    def now(self) -> float:
        """Return the clock's reading once the device has caught up."""
        self._synchronize()
        return self.timeline.now()

    def add_span(self, name: str, began_s: float, ended_s: float) -> None:
        """Count a stretch of time, read with `now`, for stage ``name``, and show it in the timeline."""
        self.add(name, ended_s - began_s)
        self.timeline.add(name, began_s, ended_s, self.timeline.context)

    def add(self, name: str, seconds: float) -> None:
        """Count ``seconds`` for stage ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
