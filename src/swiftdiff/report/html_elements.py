"""Builds pieces of HTML that pages are made of; whatever comes in is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

from swiftdiff.report.tables import Table


def text(value: object) -> str:
    """Return a value as HTML text, also for attributes in double quotes."""
    return html.escape(str(value))


def element(name: str, inner: str, attributes: Mapping[str, object] | None = None) -> str:
    """Return an element around HTML that is ready.

    Args:
        name: Its tag.
        inner: HTML.
        attributes: By name; values are escaped.
    """
    given = "".join(f' {key}="{text(value)}"' for key, value in (attributes or {}).items())
    return f"<{name}{given}>{inner}</{name}>"


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph of plain text, empty if there is none."""
    return element("p", text(words), {"class": kind} if kind else None) if words else ""


def section(title: str, parts: Iterable[str]) -> str:
    """Return a section with a heading that can be linked to; empty if it has no parts."""
    inner = "\n".join(part for part in parts if part)
    if not inner:
        return ""
    anchor = anchor_of(title)
    heading = element("h2", text(title), {"id": anchor})
    return element("section", f"{heading}\n{inner}", {"aria-labelledby": anchor})


def anchor_of(title: str) -> str:
    """Return the id that a section's heading has."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def table(shown: Table) -> str:
    """Return a table with caption and note; wide ones scroll in their own box."""
    is_number = [index > 0 and bool(column.format) for index, column in enumerate(shown.columns)]
    head = "".join(
        element("th", text(column.name), {"scope": "col"} | ({"class": "number"} if right else {}))
        for column, right in zip(shown.columns, is_number, strict=True)
    )
    rows = "\n".join(element("tr", _row(cells, is_number)) for cells in shown.shown())
    whole = (
        f"<table><caption>{text(shown.title)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    )
    box = element(
        "div", whole, {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": shown.title}
    )
    return box + paragraph(shown.note, "note")


def _row(cells: list[str], is_number: list[bool]) -> str:
    first, *others = cells
    shown = [element("th", text(first), {"scope": "row"})]
    for cell, right in zip(others, is_number[1:], strict=True):
        shown.append(element("td", text(cell), {"class": "number"} if right else None))
    return "".join(shown)
