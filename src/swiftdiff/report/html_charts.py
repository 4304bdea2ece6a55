"""Draws the charts of a page with tables, bars and inline SVG, which need no script."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from swiftdiff.report.html_elements import element, paragraph, text
from swiftdiff.report.page import Frontier, FrontierPoint, LatencyDistribution, WaterfallStep

_BINS = 60
_PERCENTILES = (50, 90, 99)
_WIDTH, _HEIGHT = 480.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 24.0, 18.0, 52.0


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


def frontier(shown: Frontier) -> str:
    """Return latency against quality as a scatter plot with its numbers below it."""
    if not shown.points:
        return ""
    points = [*shown.points, *((shown.reference,) if shown.reference is not None else ())]
    label = f"{shown.title}: {shown.measure} against mean latency for " + ", ".join(
        f"{point.label} {point.seconds:.3g} s {point.quality:.3g}" for point in points
    )
    drawn = element(
        "svg",
        _frontier_marks(shown, points),
        {"viewBox": f"0 0 {_WIDTH:g} {_HEIGHT:g}", "class": "chart", "role": "img", "aria-label": label},
    )
    rows = "".join(
        f'<tr><th scope="row">{text(point.label)}</th><td class="number">{point.seconds:.3f}</td>'
        f'<td class="number">{point.quality:.4f}</td><td class="number">{text(_interval(point))}</td></tr>'
        for point in points
    )
    numbers = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(shown.title)}, numbers">'
        f"<table><caption>{text(shown.title)}</caption><thead><tr>"
        f'<th scope="col">setting</th><th scope="col" class="number">latency, s</th>'
        f'<th scope="col" class="number">{text(shown.measure)}</th><th scope="col" class="number">95 %</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return f"<h3>{text(shown.title)}</h3>{drawn}{numbers}"


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


def _frontier_marks(shown: Frontier, points: Sequence[FrontierPoint]) -> str:
    ends = [end for point in points for end in (point.quality_low, point.quality_high) if end is not None]
    across = _Axis([point.seconds for point in points], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([*(point.quality for point in points), *ends], _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(across, up, shown.measure)]
    path = " ".join(f"{across.at(point.seconds):.1f},{up.at(point.quality):.1f}" for point in shown.points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>')
    placed: list[tuple[float, float]] = []
    for point in points:
        colour = "#8c959f" if point is shown.reference else "#1f5fa8"
        x, y = across.at(point.seconds), up.at(point.quality)
        if point.quality_low is not None and point.quality_high is not None:
            low, high = up.at(point.quality_low), up.at(point.quality_high)
            parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-opacity=".5"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        parts.append(_point_label(point.label, x, y, placed))
    return "".join(parts)


def _point_label(label: str, x: float, y: float, placed: list[tuple[float, float]]) -> str:
    """Return a point's label where none is yet; the table below has those that find no room."""
    width = 6.5 * len(label)
    is_right = x + 8 + width < _WIDTH
    start = x + 8 if is_right else x - 8 - width
    for height in (y + 16, y - 8, y + 30, y - 22):
        if all(abs(start - left) > width or abs(height - top) > 12 for left, top in placed):
            placed.append((start, height))
            halo = 'stroke="#fff" stroke-width="3" paint-order="stroke"'
            return f'<text x="{start:.1f}" y="{height:.1f}" font-size="12" {halo}>{text(label)}</text>'
    return ""


class _Axis:
    """Maps values to a stretch of the drawing, with some room at both ends."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        low, high = min(values), max(values)
        room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
        self._low, self._high = low - room, high + room
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = (value - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """Return about five round values."""
        rough = (self._high - self._low) / 5
        size = 10 ** np.floor(np.log10(rough))
        step = float(min((factor * size for factor in (1, 2, 5, 10)), key=lambda s: abs(s - rough)))
        first = np.ceil(self._low / step)
        return [float(n * step) for n in np.arange(first, np.floor(self._high / step) + 1)]


def _frame(across: _Axis, up: _Axis, measure: str) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:.4g}</text>')
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    middle, centre = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">mean latency, s</text>')
    parts.append(
        f'<text transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">{text(measure)}</text>'
    )
    return f'<g font-size="13" fill="#57606a">{"".join(parts)}</g>'


def _interval(point: FrontierPoint) -> str:
    if point.quality_low is None or point.quality_high is None:
        return "–"
    return f"{point.quality_low:.4f} to {point.quality_high:.4f}"
