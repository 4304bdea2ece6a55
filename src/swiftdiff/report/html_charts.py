"""Draws the bars of a page: the ablation and the distributions of latency, as tables with bars in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from swiftdiff.report.html_elements import paragraph, text
from swiftdiff.report.page import LatencyDistribution, WaterfallStep

_BINS = 60
_PERCENTILES = (50, 90, 99)


def waterfall(steps: Sequence[WaterfallStep]) -> str:
    """Return the ablation as bars, each from the time before its switch to the time with it."""
    if not steps:
        return ""
    longest = max(max(step.seconds, step.high or 0.0) for step in steps) or 1.0
    rows = [_waterfall_row(None, steps[0], longest)]
    rows += [_waterfall_row(before, step, longest) for before, step in pairwise(steps)]
    if len(steps) > 1:
        rows.append(_waterfall_row(None, WaterfallStep("all of them", steps[-1].seconds), longest))
    return _bars("Mean seconds a request, one more switch on a row", ("switched on", "", "seconds"), rows) + (
        paragraph("Green is time saved, red time lost; black lines are 95 % intervals.", "note")
    )


def distributions(systems: Sequence[LatencyDistribution]) -> str:
    """Return a histogram a system, all on one scale, with percentiles as numbers."""
    systems = [system for system in systems if system.seconds]
    if not systems:
        return ""
    edge = max(max(system.seconds) for system in systems) or 1.0
    rows = [_distribution_row(system, edge) for system in systems]
    names = " · ".join(f"p{q}" for q in _PERCENTILES)
    heads = ("system", f"0 to {edge:.3g} s", names)
    return _bars("Latency from arrival to delivery", heads, rows) + paragraph(
        "Height is the share of a system's requests; the black line is the median. "
        f"All rows share one scale, from 0 to {edge:.3g} s. The numbers are {names} in seconds.",
        "note",
    )


def _bars(caption: str, heads: tuple[str, str, str], rows: Sequence[str]) -> str:
    label, drawn, numbers = (text(head) or "&nbsp;" for head in heads)
    cells = (
        f'<th scope="col">{label}</th><th scope="col">{drawn}</th>'
        f'<th scope="col" class="number">{numbers}</th>'
    )
    return (
        f'<table class="bars"><caption>{text(caption)}</caption><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _waterfall_row(before: WaterfallStep | None, step: WaterfallStep, longest: float) -> str:
    if before is None:
        low, high, kind, change = 0.0, step.seconds, "total", ""
    else:
        low, high = sorted((before.seconds, step.seconds))
        kind = "less" if step.seconds <= before.seconds else "more"
        change = f" ({step.seconds - before.seconds:+.3f})".replace("-", "−")
    marks = _bar_mark(kind, low / longest, high / longest)
    if step.low is not None and step.high is not None:
        marks += _bar_mark("spread", step.low / longest, step.high / longest)
    return _bar_row(step.label, marks, f'<td class="number">{step.seconds:.3f}{change}</td>')


def _distribution_row(system: LatencyDistribution, edge: float) -> str:
    seconds = np.asarray(system.seconds)
    counts, _ = np.histogram(seconds, bins=_BINS, range=(0.0, edge))
    shares = counts / counts.max()
    marks = "".join(
        f'<rect x="{index}" y="{1 - share:.3f}" width="1" height="{share:.3f}"/>'
        for index, share in enumerate(shares)
        if share
    )
    drawn = (
        f'<svg viewBox="0 0 {_BINS} 1" preserveAspectRatio="none" aria-hidden="true" '
        f'fill="var(--blue)">{marks}</svg>'
    )
    median = float(np.median(seconds)) / edge
    line = f'<i class="total" style="left:{median:.2%};width:2px;top:0;bottom:0;background:var(--ink)"></i>'
    numbers = " · ".join(f"{np.percentile(seconds, q):.3f}" for q in _PERCENTILES)
    return _bar_row(system.system, drawn + line, f'<td class="number">{numbers}</td>')


def _bar_row(label: str, marks: str, numbers: str) -> str:
    return (
        f'<tr><th scope="row">{text(label)}</th><td class="drawn"><div class="bar">{marks}</div></td>'
        f"{numbers}</tr>"
    )


def _bar_mark(kind: str, low: float, high: float) -> str:
    return f'<i class="{kind}" style="left:{low:.2%};width:{max(high - low, 0.0):.2%}"></i>'
