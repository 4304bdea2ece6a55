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
        is_flagged: Whether a reader must be warned: ``differs``, ``broken``, ``unknown``, and any kind,
            if pictures are without a pair.
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
    return Verdict(kind, text, report.unpaired > 0 or kind in ("differs", "broken", "unknown"))


def signed(value: float, digits: int = 2) -> str:
    """A change as text: ``+0.02``, ``−0.31``, and ``0.00`` for what rounds to nothing."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def _judge(report: QualityReport) -> tuple[Kind, str]:
    count, largest = len(report.pictures), report.max_levels
    if largest is None:
        return "unknown", "no pictures to compare"
    if largest == 0:
        return "same", f"identical pictures ({count})"
    if largest <= EXACT_MAX_LEVELS:
        return "same", f"same pictures within {largest}/{MAX_LEVEL} ({count})"
    fallen = ", ".join(
        f"{SCORE_NAMES[each.name]} {_change(each.change)}"
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
    ssim = "" if report.ssim is None else f"SSIM {_mean(report.ssim)}"
    lows = {each.name: each.change.low for each in report.scores if each.change is not None}
    if not lows:
        return f"other pixels, not judged: {ssim}"
    name = min(lows, key=lambda name: lows[name])
    if lows[name] >= 0:
        return f"alike: {ssim}; no score fell"
    return f"alike: {ssim}; at worst {SCORE_NAMES[name]} {signed(lows[name])}"


def _change(estimate: Estimate) -> str:
    return f"{signed(estimate.value)} [{signed(estimate.low)}, {signed(estimate.high)}]"


def _mean(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
