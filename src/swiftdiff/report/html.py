"""Writes a comparison as one self-contained HTML file that needs no network, and no script to be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from swiftdiff.files import write_whole
from swiftdiff.report.html_charts import distributions, waterfall
from swiftdiff.report.html_elements import anchor_of, element, paragraph, section, table, text
from swiftdiff.report.html_frontier import frontier
from swiftdiff.report.html_pictures import pictures
from swiftdiff.report.html_style import CSS, SCRIPT
from swiftdiff.report.html_timeline import timelines
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
        page: What it shows. Pictures are read from their files now; one that cannot be read is said so.

    Raises:
        StorageError: It cannot be written.
    """
    write_whole(path, _to_html(page).encode())


def _to_html(page: ComparisonPage) -> str:
    sections = {
        "Result": [table(page.headline)],
        "Ablation": [waterfall(page.waterfall)],
        "Latency": [distributions(page.distributions)],
        "Speed against quality": [_side_by_side(frontier(each) for each in page.frontiers)],
        "Where the time went": [timelines(page.timelines)],
        "Pictures": [pictures(page.pictures, page.baseline)],
        "More tables": [table(each) for each in page.tables],
        "About these runs": [_facts(page)],
    }
    shown = {title: html for title, parts in sections.items() if (html := section(title, parts))}
    links = "".join(f'<li><a href="#{anchor_of(title)}">{text(title)}</a></li>' for title in shown)
    warnings = "".join(
        paragraph(warning, "remark" if warning.startswith("Note:") else "warning")
        for warning in page.warnings
    )
    body = [
        f"<header><h1>{text(page.title)}</h1>{warnings}{paragraph(page.answer, 'answer')}</header>",
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        element("main", "\n".join(shown.values())),
    ]
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # or browsers ask a server for one
            f"<title>{text(page.title)}</title>",
            f"<style>{CSS}</style>\n</head>\n<body>",
            *body,
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
        )
    )


def _side_by_side(parts: Iterable[str]) -> str:
    inner = "".join(parts)
    return element("div", inner, {"class": "side-by-side"}) if inner else ""


def _facts(page: ComparisonPage) -> str:
    if not page.facts:
        return ""
    return element(
        "dl", "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in page.facts)
    )
