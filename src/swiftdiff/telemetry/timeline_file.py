"""Owns the file of a run's timeline: Chrome's trace event format, which Perfetto opens.

A JSON array, an event a line. The format allows the closing bracket to be missing, so what a crash leaves can
be opened too, and closing the file makes it whole JSON. Each session of a run is a process in it.
Times are microseconds from the run's start.

Reference: the "Trace Event Format" document of the Chromium project.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from swiftdiff.telemetry.timeline import REQUESTS, Details, Span, Timeline

NAME = "timeline.json"
# Perfetto loads a few hundred megabytes; a run of days would otherwise fill a disk.
MAX_BYTES = 256_000_000
_TAIL_BYTES = 1 << 20
_CLOSING = "\n]\n"


class TimelineFile:
    """Writes a timeline's spans to disk. One thread at a time uses it, and never one that computes.

    A disk that takes no more ends the timeline, never the run.

    Args:
        path: The file; an earlier session's is gone on with.
        timeline: Where the spans come from.
        max_bytes: Of the file; further spans are only counted.

    Attributes:
        failure: Why nothing is written any more, or None.
    """

    def __init__(self, path: Path, timeline: Timeline, *, max_bytes: int = MAX_BYTES) -> None:
        self.failure: OSError | None = None
        self._timeline = timeline
        self._max_bytes = max_bytes
        self._num_tracks = 0
        self._left_out = 0
        self._process = 1
        self._file: BinaryIO | None = None
        try:
            self._open(path)
        except OSError as error:
            self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self) -> None:
        """Write what has been recorded so far."""
        spans = list(self._timeline.drain())
        if self._file is None or not spans:
            return
        if self._num_bytes >= self._max_bytes:
            self._left_out += len(spans)
            return
        self._write([*self._new_tracks(), *_to_lines(spans, self._process)])

    def close(self) -> None:
        """Write the rest and the closing bracket; more calls do nothing."""
        self.flush()
        if self._file is None:
            return
        missing = self._left_out + self._timeline.dropped
        if missing:
            self._write([self._metadata("process_labels", REQUESTS, {"labels": f"{missing} spans left out"})])
        self._append(_CLOSING)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> None:
        end, last_process = _find_end(path)
        self._process = last_process + 1
        self._file = path.open("r+b" if end else "wb", buffering=0)
        self._file.truncate(end)
        self._file.seek(end)
        self._num_bytes = end
        name = "swiftdiff" if self._process == 1 else f"swiftdiff, session {self._process}"
        self._write([self._metadata("process_name", REQUESTS, {"name": name})])

    def _write(self, lines: list[str]) -> None:
        if lines:
            self._append((",\n" if self._num_bytes else "[\n") + ",\n".join(lines))

    def _append(self, text: str) -> None:
        if self._file is None:
            return
        data = text.encode()
        try:
            if self._file.write(data) != len(data):
                raise OSError("only a part could be written; is the disk full?")
        except OSError as error:
            self._give_up(error)
        else:
            self._num_bytes += len(data)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        self._timeline.enabled = False
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.truncate(self._num_bytes)  # what is left can be opened
            except OSError:
                pass
            finally:
                file.close()

    def _new_tracks(self) -> Iterator[str]:
        names = self._timeline.tracks
        for track in range(max(self._num_tracks, REQUESTS + 1), len(names)):
            yield self._metadata("thread_name", track, {"name": _describe(names[track])})
            yield self._metadata("thread_sort_index", track, {"sort_index": track})
        self._num_tracks = len(names)

    def _metadata(self, name: str, track: int, details: Details) -> str:
        return _dump({"ph": "M", "name": name, "pid": self._process, "tid": track, "args": details})


def read_events(path: Path, containing: str = "") -> Iterator[dict[str, Any]]:
    """Yield the events of a file that `TimelineFile` writes, one at a time; a torn last line is passed over.

    Args:
        path: The file.
        containing: Only lines with this text are looked at, which is quick.

    Raises:
        OSError: It cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if containing in line:
                event = _parse(line)
                if event is not None:
                    yield event


def _to_lines(spans: Iterable[Span], process: int) -> Iterator[str]:
    """Yield events as JSON, put together by hand: they are many, and who writes holds the GIL."""
    last, args = None, ""
    names: dict[str, str] = {}
    for track, name, began_s, ended_s, details in spans:
        if track == REQUESTS:
            yield from _request_lines(name, began_s, ended_s, details, process)
            continue
        if details is not last:
            last, args = details, _dump(details)
        shown = names.get(name) or names.setdefault(name, _dump(name))
        duration = max(0.0, ended_s - began_s) * 1e6
        yield (
            f'{{"ph":"X","cat":"swiftdiff","name":{shown},"pid":{process},"tid":{track},'
            f'"ts":{began_s * 1e6:.1f},"dur":{duration:.1f},"args":{args}}}'
        )


def _request_lines(
    outcome: str, scheduled_s: float, finished_s: float, details: Details, process: int
) -> Iterator[str]:
    """Yield a request and its wait in the queue, as nested asynchronous events: requests overlap."""
    request_id, started_s = details["request_id"], float(details["started_s"])
    shared = {"cat": "request", "id": request_id, "pid": process, "tid": REQUESTS}
    args = {"request_id": request_id, "outcome": outcome}
    for phase, name, at_s in (
        ("b", "request", scheduled_s),
        ("b", "queue", scheduled_s),
        ("e", "queue", max(scheduled_s, started_s)),
        ("e", "request", max(scheduled_s, started_s, finished_s)),
    ):
        yield _dump({"ph": phase, "name": name, **shared, "ts": round(at_s * 1e6, 1), "args": args})


def _describe(track: str) -> str:
    return f"{track} (time of its thread, not of the GPU)" if "cuda" in track else track


def _find_end(path: Path) -> tuple[int, int]:
    """Return where an earlier session's last whole event ends, and its process; zeros if there is none."""
    if not path.exists():
        return 0, 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    end = len(tail)
    while end > 0:
        line_start = tail.rfind(b"\n", 0, end) + 1
        line = tail[line_start:end].rstrip(b",\r\n ")
        event = _parse(line.decode("utf-8", errors="replace"))
        if event is not None:
            return start + line_start + len(line), int(event.get("pid", 0))
        end = line_start - 1
    return 0, 0


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line.rstrip(",\r\n "))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
