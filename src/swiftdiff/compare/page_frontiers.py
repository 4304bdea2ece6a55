"""Gathers what the page shows of speed against quality, where a system is approximate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swiftdiff.quality.quality_report import QualityReport
from swiftdiff.quality.statistics import Estimate
from swiftdiff.report.comparison import ComparedRun, Comparison
from swiftdiff.report.page import Frontier, FrontierPoint

SECONDS = "mean seconds of service"


def quality_frontiers(comparison: Comparison, qualities: Sequence[QualityReport]) -> tuple[Frontier, ...]:
    """Return speed against each measure of quality; nothing if all systems are exact.

    Args:
        comparison: What is compared.
        qualities: How far the pictures are from the baseline's.
    """
    if all(each.exactness == "exact" for each in qualities):
        return ()
    return tuple(_frontiers(comparison, {each.system: each for each in qualities}))


def _frontiers(comparison: Comparison, qualities: dict[str, QualityReport]) -> Iterator[Frontier]:
    baseline = comparison.baseline
    runs = [(run, qualities[run.label]) for run in comparison.runs[1:] if run.label in qualities]
    ssim = [_point(run, quality.ssim) for run, quality in runs]
    yield _frontier(f"SSIM with {baseline.label}", ssim, _point(baseline, Estimate(1.0, 1.0, 1.0, 0)))
    for name in dict.fromkeys(score.name for _, quality in runs for score in quality.scores):
        scored = [(run, next(s for s in quality.scores if s.name == name)) for run, quality in runs]
        after = [_point(run, score.after) for run, score in scored]
        before = next((score.before for _, score in scored if score.before is not None), None)
        if before is not None:
            yield _frontier(f"{name} score", after, _point(baseline, before))


def _frontier(
    measure: str, points: Sequence[FrontierPoint | None], reference: FrontierPoint | None
) -> Frontier:
    return Frontier(
        title=f"Speed against {measure}",
        measure=measure,
        points=tuple(point for point in points if point is not None),
        reference=reference,
        seconds_name=SECONDS,
        is_ordered=False,
    )


def _point(run: ComparedRun, quality: Estimate | None) -> FrontierPoint | None:
    if quality is None or run.service is None:
        return None
    return FrontierPoint(run.label, run.service.mean / 1000, quality.value, quality.low, quality.high)
