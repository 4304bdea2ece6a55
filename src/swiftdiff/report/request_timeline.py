"""Reads from a run's ``timeline.json`` where one request's time went."""

from __future__ import annotations

from pathlib import Path

from swiftdiff.report.page import RequestTimeline


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
    return None
