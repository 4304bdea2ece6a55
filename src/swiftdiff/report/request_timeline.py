"""Reads from a run's ``timeline.json`` where one request's time went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import StorageError
from swiftdiff.report.page import PageSpan, RequestTimeline
from swiftdiff.request import RequestRecord
from swiftdiff.telemetry.timeline_file import read_events

_SLACK_S = 1e-3  # between a record's readings of the clock and the timeline's


def slowest_request(system: str, folder: Path) -> RequestTimeline | None:
    """Return the timeline of a run's slowest request, as the run's own ``timeline.json`` has it.

    Args:
        system: The label that the page shows.
        folder: The run's.

    Returns:
        None if no request was served, or the run has no timeline of it.

    Raises:
        StorageError: The folder is damaged.
    """
    run = RunFolder.open(folder)
    served = (record for record in run.read_records() if record.status == "ok" and not record.warmup)
    slowest = max(served, key=lambda record: record.latency_s, default=None)
    return None if slowest is None else read_request_timeline(system, folder, slowest)


def read_request_timeline(system: str, folder: Path, record: RequestRecord) -> RequestTimeline | None:
    """Return where a request's time went, from its arrival on; None if the run has no timeline of it.

    Args:
        system: The label that the page shows.
        folder: The run's.
        record: The request's.

    Raises:
        StorageError: The timeline cannot be read.
    """
    path = RunFolder(folder).timeline_path
    if not path.is_file():
        return None
    try:
        spans = sorted(_spans_of(record, path), key=lambda span: (span.began_s, -span.ended_s))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if not spans:
        return None
    whole = (
        PageSpan("request", "queue", 0.0, record.queue_wait_s),
        PageSpan("request", "service", record.queue_wait_s, record.latency_s),
    )
    return RequestTimeline(system, record.request_id, record.latency_s, (*whole, *spans))


def _spans_of(record: RequestRecord, path: Path) -> Iterator[PageSpan]:
    """Yield a request's spans; those of its warm-up, which has the same id, ended before it arrived."""
    names: dict[tuple[int, int], str] = {}
    zero_s = record.scheduled_at_s
    for event in _read(record.request_id, path):
        track = (int(event["pid"]), int(event["tid"]))
        if event["ph"] == "M":
            names[track] = str(event["args"]["name"])
            continue
        if event["name"] == "serve":  # the page has it as the request's service
            continue
        began_s = float(event["ts"]) / 1e6 - zero_s
        ended_s = began_s + float(event["dur"]) / 1e6
        if (
            began_s >= -_SLACK_S
            and began_s <= record.latency_s + record.stages.get("restore", 0.0) + _SLACK_S
        ):
            details = {key: value for key, value in event["args"].items() if key != "request_id"}
            yield PageSpan(names.get(track, "?"), str(event["name"]), began_s, ended_s, details)


def _read(request_id: str, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the names of threads and the spans that are about a request."""
    wanted = f'"request_id":{json.dumps(request_id, ensure_ascii=False)}'
    yield from (event for event in read_events(path, '"thread_name"') if event.get("ph") == "M")
    yield from (event for event in read_events(path, wanted) if event.get("ph") == "X")
