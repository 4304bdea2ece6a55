"""Says in one line whether a system's pictures are still the same pictures: what a user reads first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .picture_judge import SCORE_NAMES
from .quality_report import EXACT_MAX_LEVELS, MAX_LEVEL, QualityReport
from .statistics import Estimate

Kind = Literal["same", "alike", "differs", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a system's pictures are, beside the baseline's.

    Attributes:
        kind: ``same``: no further apart than rounding. ``alike``: other pixels, and no score fell, or nothing
            could be judged. ``differs``: a score fell, by more than chance. ``broken``: it is declared exact
            and is not. ``unknown``: there is no pair of pictures.
        text: The sentence to show.
        is_flagged: Whether a reader must be warned: ``differs``, ``broken`` and ``unknown``.
    """

    kind: Kind
    text: str
    is_flagged: bool


def verdict_of(report: QualityReport) -> Verdict:
    """Judge a report.

    Of three scores with 95 % intervals one falls by chance in about 7 % of systems that are no worse.
    """
    kind, text = _judge(report)
    if report.unpaired:
        text += f"; {report.unpaired} pictures without a pair"
    return Verdict(kind, text, kind in ("differs", "broken", "unknown"))


def interval_text(estimate: Estimate, *, is_change: bool = False) -> str:
    """An estimate as ``0.93 [0.91, 0.95]``; a change has a sign."""
    sign = "+" if is_change else ""
    value, low, high = (
        _plain(format(number, f"{sign}.2f")) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def _plain(text: str) -> str:
    return text[1:] if text in ("-0.00", "+0.00") else text.replace("-", "−")


def _judge(report: QualityReport) -> tuple[Kind, str]:
    count, largest = len(report.pictures), report.max_levels
    if largest is None:
        return "unknown", "no pictures to compare"
    if largest == 0:
        return "same", f"identical pictures ({count})"
    if largest <= EXACT_MAX_LEVELS:
        return "same", f"same pictures within {largest}/{MAX_LEVEL} ({count})"
    fallen = ", ".join(
        f"{SCORE_NAMES[each.name]} {interval_text(each.change, is_change=True)}"
        for each in report.scores
        if each.has_fallen and each.change is not None
    )
    if report.exactness == "exact":
        differing = count - report.within_rounding
        text = f"NOT EXACT: {differing} of {count} pictures differ, by up to {largest}/{MAX_LEVEL}"
        return "broken", f"{text}; {fallen}" if fallen else text
    if fallen:
        return "differs", f"differs: {fallen}"
    return "alike", _alike(report)


def _alike(report: QualityReport) -> str:
    ssim = "" if report.ssim is None else f"SSIM {interval_text(report.ssim)}"
    lows = {each.name: each.change.low for each in report.scores if each.change is not None}
    if not lows:
        return f"other pixels, not judged: {ssim}"
    name = min(lows, key=lambda name: lows[name])
    if lows[name] >= 0:
        return f"alike: {ssim}; no score fell"
    return f"alike: {ssim}; at worst {SCORE_NAMES[name]} {_plain(f'{lows[name]:.2f}')}"
