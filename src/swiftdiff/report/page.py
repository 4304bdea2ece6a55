"""Owns what the page of a comparison shows, as values that are ready to be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swiftdiff.report.tables import Table


@dataclass(frozen=True)
class WaterfallStep:
    """One bar of the ablation: a system with one more switch on than the one before it.

    Attributes:
        label: What was switched on; of the first step, the baseline's name.
        seconds: Mean seconds a request with it.
        low: Lower end of the 95 % interval of ``seconds``; None if it is not known.
        high: Its upper end.
    """

    label: str
    seconds: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LatencyDistribution:
    """Latencies of one system's served requests.

    Attributes:
        system: Its label.
        seconds: One a request and repeat, in any order.
    """

    system: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class FrontierPoint:
    """One setting of an approximate switch: how fast, and how good.

    Attributes:
        label: The setting, such as ``k=8``.
        seconds: Mean time of a request.
        quality: Mean of the frontier's measure; higher is better.
        quality_low: Lower end of its 95 % interval; None if it is not known.
        quality_high: Its upper end.
    """

    label: str
    seconds: float
    quality: float
    quality_low: float | None = None
    quality_high: float | None = None


@dataclass(frozen=True)
class Frontier:
    """Time against quality, over the settings of one switch such as k, or over systems.

    Attributes:
        title: What was varied.
        measure: What ``quality`` is, such as ``SSIM``.
        points: In the order of the setting, if they are of one switch.
        reference: The exact system's point, if there is one.
        seconds_name: What ``seconds`` of the points are.
        is_ordered: Whether a line joins the points in their order; else it joins those that no other one
            beats in both time and quality.
    """

    title: str
    measure: str
    points: tuple[FrontierPoint, ...]
    reference: FrontierPoint | None = None
    seconds_name: str = "mean latency, s"
    is_ordered: bool = True


@dataclass(frozen=True)
class PageSpan:
    """A stretch of time on one track of a request's timeline.

    Attributes:
        track: The thread: a lane, a loader or the server.
        name: What was done, in the words of the timeline.
        began_s: Seconds from the request's arrival; below 0 for what began before it.
        ended_s: The same.
        details: What else is known, such as the step or an adapter's id.
    """

    track: str
    name: str
    began_s: float
    ended_s: float
    details: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestTimeline:
    """Where one request's time went, lane by lane.

    Attributes:
        system: Label of the system that served it.
        request_id: The request.
        latency_s: From arrival to delivery.
        spans: In order of their beginning.
    """

    system: str
    request_id: str
    latency_s: float
    spans: tuple[PageSpan, ...]


@dataclass(frozen=True)
class PicturePair:
    """A picture beside the baseline's of the same request and seed.

    Attributes:
        system: Label of the system that made ``other``.
        request_id: The request.
        index: Of the picture in the request.
        prompt: What it should show; empty if it is not known.
        baseline: The baseline's file.
        other: The system's file.
        score: What was measured of the pair, such as ``SSIM 0.93, largest difference 40 levels``.
    """

    system: str
    request_id: str
    index: int
    prompt: str
    baseline: Path
    other: Path
    score: str = ""


@dataclass(frozen=True)
class ComparisonPage:
    """All that the page of a comparison shows. What is empty is left out of the page.

    Attributes:
        title: Heading, such as ``4 systems on quickstart.jsonl``.
        answer: One or two sentences: which system is how much faster, and is it the same picture.
        headline: The table that the page opens with.
        baseline: Label of the system that the others are measured against.
        warnings: Sentences that stand above everything else.
        facts: Name and value: trace, model, machine, command, version.
        tables: Further tables, in order.
        waterfall: The ablation, baseline first, all switches on last.
        distributions: Latencies by system, the baseline first.
        frontiers: Speed against quality.
        timelines: The slowest request of each system.
        pictures: The most different pairs, worst first.
    """

    title: str
    answer: str
    headline: Table
    baseline: str
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    waterfall: tuple[WaterfallStep, ...] = ()
    distributions: tuple[LatencyDistribution, ...] = ()
    frontiers: tuple[Frontier, ...] = ()
    timelines: tuple[RequestTimeline, ...] = ()
    pictures: tuple[PicturePair, ...] = ()
