"""Owns what happened when, on which thread: spans that a run's timeline is written from."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

#: What a span is about: ``request_id``, ``step``, ``adapter`` and the like. Never changed once it is made.
Details = Mapping[str, str | int | float]
NOTHING: Details = {}
#: The track of whole requests; they overlap, so they are on no thread's.
REQUESTS = 0
# Spans that wait to be written. A request of 50 steps on four lanes has about 800.
CAPACITY = 100_000

_Callable = TypeVar("_Callable", bound=Callable[..., Any])
_UNNAMED = "work"


class Span(NamedTuple):
    """A stretch of time.

    Attributes:
        track: Number of the thread, or `REQUESTS`.
        name: What was done; of a whole request, how it ended.
        began_s: By the timeline's clock.
        ended_s: The same.
        details: What it is about.
    """

    track: int
    name: str
    began_s: float
    ended_s: float
    details: Details


class Timeline:
    """Collects spans from all threads; another one takes them out with `drain` and writes them.

    `add` may be called on any thread: it reads no lock and costs about a microsecond. `context`, `tell`,
    `about` and `span` belong to the thread that serves. `drain` is for one thread at a time.

    What work on a GPU's lane took is the time of its thread, which queues it, not that of the device.

    Args:
        clock: Seconds from any moment.
        capacity: Spans kept at most between two calls of `drain`; what comes then is counted as dropped.
        enabled: False is a timeline that takes nothing, such as `OFF`.

    Attributes:
        now: The clock.
        enabled: Whether spans are taken.
        context: What the serving thread is at; work that it hands to lanes and loaders is about that.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        *,
        capacity: int = CAPACITY,
        enabled: bool = True,
    ) -> None:
        self.now = clock
        self.enabled = enabled
        self.context: Details = NOTHING
        self._spans: deque[Span] = deque()  # append and popleft are atomic
        self._capacity = capacity
        self._here = threading.local()
        self._lock = threading.Lock()  # of what follows
        self._tracks: list[str] = ["requests"]
        self._dropped = 0

    @property
    def tracks(self) -> tuple[str, ...]:
        """Names of the tracks so far, by number."""
        with self._lock:
            return tuple(self._tracks)

    @property
    def pending(self) -> int:
        """Spans that `drain` would give now."""
        return len(self._spans)

    @property
    def dropped(self) -> int:
        """Spans that were not taken for want of room."""
        with self._lock:
            return self._dropped

    def add(self, name: str, began_s: float, ended_s: float, details: Details) -> None:
        """Note what the calling thread did.

        Args:
            name: What it was, in the words of shared stages where there is one.
            began_s: When, by `now`.
            ended_s: The same.
            details: What it was about; must not be changed any more.
        """
        if self.enabled:
            self._take(self._track(), name, began_s, ended_s, details)

    def add_request(
        self, request_id: str, outcome: str, scheduled_s: float, started_s: float, finished_s: float
    ) -> None:
        """Note a whole request, from its arrival to its delivery."""
        if self.enabled:
            details: Details = {"request_id": request_id, "started_s": started_s}
            self._take(REQUESTS, outcome, scheduled_s, finished_s, details)

    def name_track(self, name: str) -> None:
        """Give the calling thread's track a name; without, it is the thread's own."""
        self._here.track = self._new_track(name)

    def tell(self, context: Details) -> None:
        """Say what the serving thread is at from now on."""
        if self.enabled:
            self.context = context

    @contextmanager
    def about(self, context: Details) -> Iterator[None]:
        """Say what the serving thread does for another request meanwhile."""
        before = self.context
        self.tell(context)
        try:
            yield
        finally:
            self.tell(before)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Note a block of the serving thread, also when it raises."""
        began_s = self.now()
        try:
            yield
        finally:
            self.add(name, began_s, self.now(), self.context)

    def drain(self) -> Iterator[Span]:
        """Take out and yield the spans that are there now, oldest first."""
        for _ in range(len(self._spans)):
            yield self._spans.popleft()

    def _take(self, track: int, name: str, began_s: float, ended_s: float, details: Details) -> None:
        if len(self._spans) < self._capacity:
            self._spans.append(Span(track, name, began_s, ended_s, details))
        else:
            with self._lock:
                self._dropped += 1

    def _track(self) -> int:
        try:
            track: int = self._here.track
        except AttributeError:
            track = self._here.track = self._new_track(threading.current_thread().name)
        return track

    def _new_track(self, name: str) -> int:
        with self._lock:
            same = sum(known == name or known.startswith(f"{name} #") for known in self._tracks)
            self._tracks.append(f"{name} #{same + 1}" if same else name)
            return len(self._tracks) - 1


#: Takes nothing: for whoever has not been told to record.
OFF = Timeline(enabled=False)


def spanned(name: str) -> Callable[[_Callable], _Callable]:
    """Say how the timeline calls a function or class when a lane computes it."""

    def give_name(computed: _Callable) -> _Callable:
        computed.span_name = name  # type: ignore[attr-defined]
        return computed

    return give_name


def span_name(computed: Callable[..., Any]) -> str:
    """Return the name that `spanned` gave, or a general one."""
    name: str = getattr(computed, "span_name", _UNNAMED)
    return name
