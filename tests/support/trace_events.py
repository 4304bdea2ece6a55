"""Reads timelines as Perfetto does, and refuses what the trace event format does not allow."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

ROUNDING_US = 0.2


def read_timeline(path: Path) -> list[dict[str, Any]]:
    """Return the events of a timeline that is whole or was cut short after an event."""
    text = path.read_text(encoding="utf-8")
    events = json.loads(text if text.rstrip().endswith("]") else text + "]")
    check_events(events)
    return list(events)


def check_events(events: Any) -> None:
    """Fail unless a viewer can show every event.

    Complete events need a time, a duration and a thread that has a name, and must nest on their thread;
    asynchronous ones must come in pairs that nest below one id.
    """
    assert isinstance(events, list)
    named = {
        (event["pid"], event["tid"])
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name" and event["args"]["name"]
    }
    by_thread: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    open_by_id: dict[tuple[int, str, str], list[str]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event.get("ts", 0.0)):  # stable, as Perfetto sorts
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            continue
        assert isinstance(event["ts"], int | float)
        assert isinstance(event["args"], dict)
        if event["ph"] == "X":
            assert (event["pid"], event["tid"]) in named
            assert event["dur"] >= 0
            by_thread[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        else:
            waiting = open_by_id[event["pid"], event["cat"], event["id"]]
            if event["ph"] == "b":
                waiting.append(event["name"])
            else:
                assert event["ph"] == "e"
                assert waiting.pop() == event["name"]
    assert not any(open_by_id.values())
    for spans in by_thread.values():
        _check_nesting(spans)


def _check_nesting(spans: list[tuple[float, float]]) -> None:
    around: list[float] = []
    for began, ended in sorted(spans, key=lambda span: (span[0], -span[1])):
        while around and around[-1] <= began + ROUNDING_US:
            around.pop()
        assert not around or ended <= around[-1] + ROUNDING_US, (began, ended, around)
        around.append(ended)


def spans_named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the complete events of a name."""
    return [event for event in events if event["ph"] == "X" and event["name"] == name]


def overlap(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Tell whether two complete events share more than what rounding explains."""
    begin = max(first["ts"], second["ts"])
    end = min(first["ts"] + first["dur"], second["ts"] + second["dur"])
    return bool(end - begin > ROUNDING_US)
