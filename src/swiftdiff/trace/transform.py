"""Makes traces from traces: a part of one, one faster or slower, several as one. Memory stays constant."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

import swiftdiff
from swiftdiff.errors import StorageError, TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.control_copies import ControlCopies
from swiftdiff.trace.provenance import Provenance
from swiftdiff.trace.reader import read_provenance, read_trace, source_of
from swiftdiff.trace.uniqueness import SeenIds
from swiftdiff.trace.writer import write_trace

_MAX_ID = 128  # characters, as `swiftdiff.request` checks
Watch = Callable[[Iterable[ImageRequest]], Iterator[ImageRequest]]
"""Passes requests on, and may show how many there were."""


@dataclass(frozen=True)
class TimeSpan:
    """The requests that arrive from one moment on and before another, in seconds from the trace's start."""

    from_s: float = 0.0
    to_s: float = math.inf

    def take(self, requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
        """Yield the requests that arrive then."""
        later = itertools.dropwhile(lambda request: request.timestamp < self.from_s * 1000, requests)
        return itertools.takewhile(lambda request: request.timestamp < self.to_s * 1000, later)

    def options(self) -> dict[str, JsonValue]:
        """Return the options that ask for it."""
        bounds: dict[str, JsonValue] = {"from": self.from_s, "to": self.to_s}
        return bounds if math.isfinite(self.to_s) else {"from": self.from_s}


@dataclass(frozen=True)
class CountSpan:
    """So many requests (None is all) after leaving out the first few."""

    start: int = 0
    count: int | None = None

    def take(self, requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
        """Yield these requests."""
        end = None if self.count is None else self.start + self.count
        return itertools.islice(requests, self.start, end)

    def options(self) -> dict[str, JsonValue]:
        """Return the options that ask for it."""
        bounds: dict[str, JsonValue] = {"start": self.start, "count": self.count}
        return bounds if self.count is not None else {"start": self.start}


@dataclass(frozen=True)
class Selection:
    """Which requests are let through before a part is taken.

    Attributes:
        with_loras: Only those that use LoRAs.
        every: The first of every so many of them.
    """

    with_loras: bool = False
    every: int = 1

    def take(self, requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
        """Yield these requests."""
        wanted = (request for request in requests if request.loras or not self.with_loras)
        return itertools.islice(wanted, 0, None, self.every)

    def options(self) -> dict[str, JsonValue]:
        """Return the options that ask for it."""
        options: dict[str, JsonValue] = {"with_loras": True} if self.with_loras else {}
        return options | ({"every": self.every} if self.every > 1 else {})


def slice_trace(
    source: Path,
    out: Path,
    span: TimeSpan | CountSpan,
    selection: Selection = Selection(),
    *,
    keep_times: bool = False,
    overwrite: bool = False,
    watch: Watch = iter,
) -> int:
    """Write a part of a trace and return how many requests it has. What follows the part is not read.

    Args:
        source: The trace.
        out: The new one.
        span: Which requests, of those that are selected.
        selection: Which are selected; by default all.
        keep_times: Whether they keep their arrivals; otherwise the first arrives at 0.
        overwrite: Whether ``out`` may exist.
        watch: Sees the requests go by.

    Raises:
        TraceError: ``source`` is wrong, or no request lies in the span.
        StorageError: ``out`` cannot be written.
    """
    asked = span.options() | selection.options()
    options = asked | ({"keep_times": True} if keep_times else {})
    taken = _not_empty(
        span.take(selection.take(read_trace(source))), f"{source}: no request is left by {_say(asked)}"
    )
    moved = taken if keep_times else _from_zero(taken)
    with _Writing(out, [source], overwrite) as writing:
        requests = writing.copies.carry(moved, source)
        return writing.write("trace slice", requests, options, watch)


def scale_trace(
    source: Path, out: Path, speed: float, *, overwrite: bool = False, watch: Watch = iter
) -> int:
    """Write a trace whose requests arrive ``speed`` times as fast and return how many there are.

    Args:
        source: The trace.
        out: The new one.
        speed: Above 0. Arrivals are divided by it, the first one too.
        overwrite: Whether ``out`` may exist.
        watch: Sees the requests go by.

    Raises:
        TraceError: ``source`` is wrong, or an arrival would be later than numbers go.
        StorageError: ``out`` cannot be written.
    """
    scaled = _not_empty(_scaled(read_trace(source), speed, source), f"{source}: the trace holds no requests")
    with _Writing(out, [source], overwrite) as writing:
        requests = writing.copies.carry(scaled, source)
        return writing.write("trace scale", requests, {"speed": speed}, watch)


def mean_rate(source: Path, watch: Watch = iter) -> float:
    """Return a trace's gaps over the seconds from its first to its last arrival.

    Raises:
        TraceError: It is wrong, or all its requests arrive at once.
    """
    first_ms = last_ms = None
    gaps = -1
    for request in watch(read_trace(source)):
        first_ms = request.timestamp if first_ms is None else first_ms
        last_ms = request.timestamp
        gaps += 1
    if first_ms is None or last_ms is None or first_ms == last_ms:
        raise TraceError(f"{source}: a request rate needs requests at two different times")
    return gaps / (last_ms - first_ms) * 1000


def merge_traces(
    sources: Sequence[Path], out: Path, *, prefix: bool = False, overwrite: bool = False, watch: Watch = iter
) -> int:
    """Write several traces as one, in order of arrival, and return how many requests it has.

    Each trace keeps its own times. Of requests that arrive together the first trace's come first.

    Args:
        sources: The traces.
        out: The new one.
        prefix: Whether ids become ``1-<id>`` for the first trace's requests, ``2-<id>``, and so on.
        overwrite: Whether ``out`` may exist.
        watch: Sees the requests go by.

    Raises:
        TraceError: A trace is wrong, or two have the same request id and ``prefix`` is false.
        StorageError: ``out`` cannot be written.
    """
    with _Writing(out, sources, overwrite) as writing:
        streams = []
        for number, source in enumerate(sources, start=1):
            requests = _not_empty(read_trace(source), f"{source}: the trace holds no requests")
            named = _prefixed(requests, f"{number}-", source) if prefix else requests
            streams.append(writing.copies.carry(named, source, below=str(number)))
        merged: Iterator[ImageRequest] = heapq.merge(*streams, key=lambda request: request.timestamp)
        if not prefix:
            merged = _unique(merged, sources)
        return writing.write("trace merge", merged, {"prefix": True} if prefix else {}, watch)


def all_filled_in(provenance: Provenance) -> dict[str, str]:
    """Return what was made up in a trace or in those that it was made from, and how, by field."""
    inherited = all_filled_in(provenance.parent) if provenance.parent is not None else {}
    return inherited | provenance.filled_in


class _Writing:
    """A trace that is made from others: where it goes, what comes along, what it says of its origin."""

    def __init__(self, out: Path, sources: Sequence[Path], overwrite: bool) -> None:
        if any(source.resolve() == out.resolve() for source in sources):
            raise StorageError(f"-o {out} is the trace that is read; name another")
        if out.exists() and not overwrite:
            raise StorageError(f"{out} exists; choose another -o or use --force")
        self._out = out
        self._sources = sources
        self.copies = ControlCopies(out, overwrite=overwrite)

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *exception: object) -> None:
        self.copies.close()

    def write(
        self, command: str, requests: Iterable[ImageRequest], options: dict[str, JsonValue], watch: Watch
    ) -> int:
        parents = [read_provenance(source) for source in self._sources]
        provenance = Provenance(
            command=command,
            swiftdiff=swiftdiff.__version__,
            sources=tuple(source_of(source) for source in self._sources),
            options=options,
            filled_in={} if len(parents) == 1 else _filled_in(self._sources, parents),
            parent=parents[0] if len(parents) == 1 else None,
        )
        return write_trace(self._out, self.copies.finish(watch(requests)), provenance)


def _filled_in(sources: Sequence[Path], parents: Sequence[Provenance | None]) -> dict[str, str]:
    """Return what was made up in traces of which there is no single parent, by trace and field."""
    return {
        f"{source.name}: {field}": how
        for source, parent in zip(sources, parents, strict=True)
        if parent is not None
        for field, how in all_filled_in(parent).items()
    }


def _not_empty(requests: Iterable[ImageRequest], complaint: str) -> Iterator[ImageRequest]:
    is_empty = True
    for request in requests:
        is_empty = False
        yield request
    if is_empty:
        raise TraceError(complaint)


def _say(options: dict[str, JsonValue]) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items())


def _from_zero(requests: Iterable[ImageRequest]) -> Iterator[ImageRequest]:
    first_ms = None
    for request in requests:
        first_ms = request.timestamp if first_ms is None else first_ms
        yield request.model_copy(update={"timestamp": request.timestamp - first_ms})


def _scaled(requests: Iterable[ImageRequest], speed: float, source: Path) -> Iterator[ImageRequest]:
    for request in requests:
        timestamp = request.timestamp / speed
        if not math.isfinite(timestamp):
            where = f"{source}: request {request.request_id}"
            raise TraceError(f"{where}: its arrival at speed {speed:g} is later than numbers go")
        yield request.model_copy(update={"timestamp": timestamp})


def _prefixed(requests: Iterable[ImageRequest], prefix: str, source: Path) -> Iterator[ImageRequest]:
    for request in requests:
        name = prefix + request.request_id
        if len(name) > _MAX_ID:
            where = f"{source}: request {request.request_id}"
            raise TraceError(
                f"{where}: its id would be longer than {_MAX_ID} characters with {prefix!r} before it"
            )
        yield request.model_copy(update={"request_id": name})


def _unique(requests: Iterable[ImageRequest], sources: Sequence[Path]) -> Iterator[ImageRequest]:
    seen = SeenIds()
    for request in requests:
        if not seen.add(request.request_id):
            owners = [source for source in sources if _holds(source, request.request_id)]
            if len(owners) > 1:  # otherwise two ids only shared a hash
                names = " and ".join(str(owner) for owner in owners[:2])
                raise TraceError(
                    f"request_id {request.request_id!r} is in both {names}, but must be unique; with "
                    "--prefix the ids of each trace begin with its number"
                )
        yield request


def _holds(source: Path, request_id: str) -> bool:
    return any(request.request_id == request_id for request in read_trace(source))
