"""Says in sentences on which machine, with which software and when something was measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def machine_lines(environment: Mapping[str, Any]) -> list[str]:
    """Return machine, software and command line, as ``environment.json`` has them."""
    return [
        f"Machine: {environment['cpu']}, {environment['usable_cores']} usable cores of "
        f"{environment['cores']}, {environment['memory_bytes'] / 2**30:.0f} GiB, {environment['platform']}.",
        f"Software: {software_of(environment)}.",
        f"Command: {' '.join(environment['command'])}",
    ]


def software_of(environment: Mapping[str, Any]) -> str:
    """Return versions of what numbers depend on."""
    return (
        f"swiftdiff {environment['swiftdiff']} at {environment['git_commit'] or 'no commit'}, "
        f"Python {environment['python']}, torch {environment['packages']['torch']}, "
        f"diffusers {environment['packages']['diffusers']}"
    )


def begin_line(environment: Mapping[str, Any], load_at_start: float, other_share: tuple[float, float]) -> str:
    """Return when measuring began, and what else the machine did.

    Args:
        environment: With its ``sessions``.
        load_at_start: The load average before the first of them.
        other_share: Cores that other processes kept busy meanwhile: median and highest.
    """
    sessions = environment["sessions"]
    began = datetime.fromisoformat(sessions[0]["started_at"])
    return (
        f"Began {began:%Y-%m-%d %H:%M} at a load average of {load_at_start:.2f}"
        f"{f', in {len(sessions)} sessions' if len(sessions) > 1 else ''}; other processes then kept "
        f"{other_share[0]:.2f} cores busy at the median, {other_share[1]:.2f} at most."
    )
