"""Owns the timing of one request's stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimer:
    """Adds up seconds by stage name; a stage that is entered twice counts both times.

    Args:
        synchronize: Called before each reading, so that a device's queued work is counted in the stage that
            queued it.
        clock: Seconds from any moment.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize = synchronize
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, also when it raises."""
        began = self.now()
        try:
            yield
        finally:
            self.add(name, self.now() - began)

    def now(self) -> float:
        """Return the clock's reading once the device has caught up."""
        self._synchronize()
        return self._clock()

    def add(self, name: str, seconds: float) -> None:
        """Count ``seconds`` for stage ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
