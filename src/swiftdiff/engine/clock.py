"""Owns what time it is for a replay: the machine's clock, or one that tests move."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds from any moment, and a way to wait."""

    def now(self) -> float:
        """Return the present, in seconds; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RealClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return the present, in seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C interrupts it."""
        time.sleep(seconds)


class RunClock:
    """Seconds from a run's start, over all its sessions.

    Args:
        clock: The clock it follows.
        start_s: What it reads now.
    """

    def __init__(self, clock: Clock, start_s: float) -> None:
        self._clock = clock
        self._zero_s = clock.now() - start_s

    def now(self) -> float:
        """Return the present, in seconds."""
        return self._clock.now() - self._zero_s

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)


class FakeClock:
    """A clock that moves only when told to, or when someone sleeps."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Return the present, in seconds."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Move the clock forward at once."""
        if seconds < 0:
            raise ValueError(f"cannot sleep {seconds} s")
        self._now_s += seconds
