"""Draws time against quality as inline SVG, with its numbers in a table below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swiftdiff.report.html_elements import element, text
from swiftdiff.report.page import Frontier, FrontierPoint

_WIDTH, _HEIGHT = 480.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 24.0, 18.0, 52.0
_LEAST_QUALITY = 0.02  # of a score's axis: what rounding does to pictures must not look like a slope


def frontier(shown: Frontier) -> str:
    """Return latency against quality as a scatter plot with its numbers below it."""
    if not shown.points:
        return ""
    points = [*shown.points, *((shown.reference,) if shown.reference is not None else ())]
    label = f"{shown.title}: {shown.measure} against {shown.seconds_name} for " + ", ".join(
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
        f'<th scope="col">setting</th><th scope="col" class="number">seconds</th>'
        f'<th scope="col" class="number">{text(shown.measure)}</th><th scope="col" class="number">95 %</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return f"<div><h3>{text(shown.title)}</h3>{drawn}{numbers}</div>"


def _frontier_marks(shown: Frontier, points: Sequence[FrontierPoint]) -> str:
    ends = [end for point in points for end in (point.quality_low, point.quality_high) if end is not None]
    across = _Axis([point.seconds for point in points], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([*(point.quality for point in points), *ends], _HEIGHT - _BOTTOM, _TOP, _LEAST_QUALITY)
    parts = [_frame(across, up, shown)]
    joined = shown.points if shown.is_ordered else _unbeaten(points)
    path = " ".join(f"{across.at(point.seconds):.1f},{up.at(point.quality):.1f}" for point in joined)
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


def _unbeaten(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Return the points that no other one beats in time and quality, the fastest first."""
    best: list[FrontierPoint] = []
    for point in sorted(points, key=lambda each: (each.seconds, -each.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


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

    def __init__(self, values: Sequence[float], begin: float, end: float, least: float = 0.0) -> None:
        low, high = min(values), max(values)
        room = max((high - low) * 0.08, (least - (high - low)) / 2) or abs(high) * 0.05 or 1.0
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


def _frame(across: _Axis, up: _Axis, shown: Frontier) -> str:
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
    below, left = text(shown.seconds_name), text(shown.measure)
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{below}</text>')
    parts.append(f'<text transform="translate(14 {centre}) rotate(-90)" text-anchor="middle">{left}</text>')
    return f'<g font-size="13" fill="#57606a">{"".join(parts)}</g>'


def _interval(point: FrontierPoint) -> str:
    if point.quality_low is None or point.quality_high is None:
        return "–"
    return f"{point.quality_low:.4f}–{point.quality_high:.4f}"
