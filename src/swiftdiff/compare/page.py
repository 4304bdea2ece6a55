"""Gathers what the page of a comparison shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import swiftdiff
from swiftdiff.compare.page_frontiers import quality_frontiers
from swiftdiff.errors import SwiftdiffError
from swiftdiff.quality.quality_report import QualityReport
from swiftdiff.quality.verdict import verdict_of
from swiftdiff.report.comparison import ComparedRun, Comparison
from swiftdiff.report.html import ComparisonPage, LatencyDistribution, PicturePair, WaterfallStep
from swiftdiff.report.request_timeline import slowest_request
from swiftdiff.report.tables import Table
from swiftdiff.report.waterfall import Step
from swiftdiff.trace import read_trace

_PAIRS_A_SYSTEM = 4


def make_page(
    comparison: Comparison,
    tables: Sequence[Table],
    warnings: Sequence[str],
    steps: Sequence[Step],
    qualities: Sequence[QualityReport],
) -> ComparisonPage:
    """Return the page of a comparison.

    Args:
        comparison: What is compared.
        tables: All of its tables, the headline first.
        warnings: Sentences that stand above them.
        steps: The ablation.
        qualities: How far the pictures are from the baseline's.
    """
    info = comparison.baseline.result.info
    labels = [run.label for run in comparison.runs]
    first = [next(iter(run.system.runs.values()))[0].path for run in comparison.runs]
    timelines = (slowest_request(label, path) for label, path in zip(labels, first, strict=True))
    return ComparisonPage(
        title=f"{len(labels)} systems on {Path(info.trace).name}",
        answer=_answer(comparison, qualities),
        headline=tables[0],
        baseline=labels[0],
        warnings=tuple(warnings),
        facts=(
            ("Trace", f"{Path(info.trace).name}, SHA-256 {info.trace_sha256[:12]}"),
            ("Load", info.options.load.describe()),
            ("Model", f"{info.model} on {info.device}"),
            ("Runs", f"{comparison.num_repeats} of each system, from {info.started_at} on"),
            ("swiftdiff", swiftdiff.__version__),
        ),
        tables=tuple(tables[1:]),
        waterfall=_waterfall(steps) if len(steps) > 2 else (),
        distributions=tuple(
            LatencyDistribution(run.label, tuple(run.served["latency_s"])) for run in comparison.runs
        ),
        frontiers=quality_frontiers(comparison, qualities),
        timelines=tuple(timeline for timeline in timelines if timeline is not None),
        pictures=tuple(_picture_pairs(comparison, qualities)),
    )


def _answer(comparison: Comparison, qualities: Sequence[QualityReport]) -> str:
    known = [run for run in comparison.runs[1:] if run.latency_speedup.mean is not None]
    if not known:
        return "No request was served by two systems."
    best = max(known, key=lambda run: run.latency_speedup.mean or 0.0)
    speedup = best.latency_speedup
    answer = (
        f"{best.label} is {speedup.mean:.2f} times as fast as {comparison.baseline.label} "
        f"(95 % interval {speedup.low:.2f} to {speedup.high:.2f}; mean latency, "
        f"{best.num_paired} paired requests)."
    )
    verdicts = [verdict_of(each).text for each in qualities if each.system == best.label]
    return f"{answer} Its pictures: {verdicts[0]}." if verdicts else answer


def _waterfall(steps: Sequence[Step]) -> tuple[WaterfallStep, ...]:
    return tuple(
        WaterfallStep(step.label, step.latency_s.value, step.latency_s.low, step.latency_s.high)
        for step in steps
    )


def _picture_pairs(comparison: Comparison, qualities: Sequence[QualityReport]) -> Iterator[PicturePair]:
    """Yield each system's pictures that are least like the baseline's, worst first."""
    runs = {run.label: run for run in comparison.runs}
    chosen = []
    for report in qualities:
        first = [each for each in report.pictures if each.repeat == 0]
        worst = sorted(first, key=lambda each: (each.pixels.ssim, -each.pixels.max_levels))
        chosen += [(runs[report.system], each) for each in worst[:_PAIRS_A_SYSTEM]]
    prompts = _read_prompts(comparison, {each.request_id for _, each in chosen})
    for run, each in chosen:
        before, after = (_picture(one, each.request_id, each.index) for one in (comparison.baseline, run))
        if before is not None and after is not None:
            yield PicturePair(
                system=run.label,
                request_id=each.request_id,
                index=each.index,
                prompt=prompts.get(each.request_id, ""),
                baseline=before,
                other=after,
                score=f"SSIM {each.pixels.ssim:.3f}, largest difference {each.pixels.max_levels} levels",
            )


def _picture(run: ComparedRun, request_id: str, index: int) -> Path | None:
    number, (folder, _) = next(iter(run.system.runs.items()))
    if (request_id, number) not in run.served.index:
        return None
    images = run.served.at[(request_id, number), "images"]
    return folder.path / images[index] if index < len(images) else None


def _read_prompts(comparison: Comparison, wanted: Iterable[str]) -> dict[str, str]:
    """Return prompts by request id, as far as the trace is still where it was."""
    left, prompts = set(wanted), {}
    try:
        for request in read_trace(Path(comparison.baseline.result.info.trace)):
            if not left:
                break
            if request.request_id in left:
                prompts[request.request_id] = request.prompt
                left.discard(request.request_id)
    except SwiftdiffError:
        return prompts
    return prompts
