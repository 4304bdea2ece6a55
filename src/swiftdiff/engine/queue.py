"""Owns the requests that have arrived and wait: first come, first served."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from swiftdiff.engine.arrivals import Arrival
from swiftdiff.engine.clock import Clock
from swiftdiff.request import ImageRequest

MAX_HELD = (
    1000  # waiting requests kept in memory; further ones stay in the trace, their arrival times unchanged
)


class RequestQueue(Protocol):
    """Where the server takes its next request from."""

    def take(self) -> Arrival | None:
        """Return the oldest request that waits, sleeping until one arrives; None when there will be none."""
        ...

    def release(self, finished_at_s: float) -> None:
        """Note that a request taken before is done."""
        ...

    def waiting(self) -> int:
        """Return how many requests have arrived and wait, counting no further than `MAX_HELD`."""
        ...

    def upcoming(self, limit: int) -> list[ImageRequest]:
        """Return the oldest requests that have arrived and wait, at most ``limit``."""
        ...


class OpenQueue:
    """Requests arrive at their own times, whether or not the server keeps up.

    Args:
        arrivals: In order of time.
        clock: Reads 0 when the load starts.
    """

    def __init__(self, arrivals: Iterator[Arrival], clock: Clock) -> None:
        self._arrivals = arrivals
        self._clock = clock
        self._waiting: deque[Arrival] = deque()
        self._next = next(arrivals, None)

    def take(self) -> Arrival | None:
        """Return the oldest request, sleeping until it arrives."""
        self._admit()
        if not self._waiting:
            if self._next is None:
                return None
            self._clock.sleep(max(self._next.at_s - self._clock.now(), 0.0))
            self._waiting.append(self._next)
            self._next = next(self._arrivals, None)
        return self._waiting.popleft()

    def release(self, finished_at_s: float) -> None:
        """Nothing: arrivals do not depend on the server."""

    def waiting(self) -> int:
        """Return how many wait now."""
        self._admit()
        return len(self._waiting)

    def upcoming(self, limit: int) -> list[ImageRequest]:
        """Return the next of those that wait now."""
        self._admit()
        return [arrival.request for arrival in itertools.islice(self._waiting, limit)]

    def _admit(self) -> None:
        now_s = self._clock.now()
        while self._next is not None and self._next.at_s <= now_s and len(self._waiting) < MAX_HELD:
            self._waiting.append(self._next)
            self._next = next(self._arrivals, None)


class ClosedQueue:
    """A fixed number of users, each asking for its next picture the moment its last one is done."""

    def __init__(self, requests: Iterable[ImageRequest], max_concurrency: int, clock: Clock) -> None:
        self._requests = iter(requests)
        self._free_since_s = deque([clock.now()] * max_concurrency)
        self._waiting: deque[Arrival] = deque()

    def take(self) -> Arrival | None:
        """Return the oldest request; it never has to be waited for."""
        self._admit()
        return self._waiting.popleft() if self._waiting else None

    def release(self, finished_at_s: float) -> None:
        """Let the user whose request finished ask for the next one."""
        self._free_since_s.append(finished_at_s)

    def waiting(self) -> int:
        """Return how many wait now."""
        self._admit()
        return len(self._waiting)

    def upcoming(self, limit: int) -> list[ImageRequest]:
        """Return the next of those that wait now."""
        self._admit()
        return [arrival.request for arrival in itertools.islice(self._waiting, limit)]

    def _admit(self) -> None:
        while self._free_since_s and len(self._waiting) < MAX_HELD:
            request = next(self._requests, None)
            if request is None:
                return
            self._waiting.append(Arrival(self._free_since_s.popleft(), request))
