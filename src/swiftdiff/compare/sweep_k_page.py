"""Decides what the page of a sweep of k shows: the answer, the frontiers, and pictures beside k = 0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from swiftdiff.compare.sweep_k_folder import SweepFolder
from swiftdiff.compare.sweep_k_options import Measure
from swiftdiff.compare.sweep_k_results import MEASURES, LoraResult, Point, SweepResult
from swiftdiff.compare.sweep_k_tables import frontier_table, landed_table, largest_k_table, load_note
from swiftdiff.report.page import ComparisonPage, Frontier, FrontierPoint, PicturePair

MEASURE_NAMES: dict[Measure, str] = {
    "style": "style score",
    "attributes": "attribute score",
    "ssim": "SSIM with k = 0",
}


def make_page(folder: SweepFolder, result: SweepResult) -> ComparisonPage:
    """Return the page of a sweep."""
    options, subject = result.options, result.subject
    ks = [each.largest_k for each in result.loras if each.error is None and each.points]
    span = f"{min(ks)} to {max(ks)}" if ks and min(ks) < max(ks) else str(ks[0] if ks else 0)
    warnings = [f"FAILED: {failure}" for failure in result.failures]
    if not result.complete:
        warnings.insert(0, "INCOMPLETE: what is missing may change all of this.")
    return ComparisonPage(
        title=f"k for the LoRAs of {Path(options.config.model).name}",
        answer=f"Within the margin the {len(ks)} LoRAs may be late by {span} of "
        f"{options.num_inference_steps} steps. {load_note(result)}",
        headline=largest_k_table(result),
        baseline="k = 0",
        warnings=tuple(warnings),
        facts=(
            ("Model", options.config.model),
            ("SHA-256 of its weights", subject.weights_sha256 if subject else "–"),
            ("Scheduler", options.config.scheduler),
            ("Pictures a LoRA and k", str(options.prompts)),
            ("Latencies a LoRA and k", str(options.repeats)),
            ("Seed", str(options.seed)),
        ),
        tables=(frontier_table(result), landed_table(result)),
        frontiers=tuple(_frontiers(result)),
        pictures=tuple(_pictures(folder, result)),
    )


def _frontiers(result: SweepResult) -> Iterator[Frontier]:
    for name in MEASURES:
        points = [_frontier_point(point, name) for point in result.overall]
        known = tuple(point for point in points if point is not None)
        if known:
            yield Frontier("Steps k without the LoRA, mean of all LoRAs", MEASURE_NAMES[name], known)


def _frontier_point(point: Point, name: Measure) -> FrontierPoint | None:
    score, latency = point.scores.get(name), point.latency
    if score is None or latency is None:
        return None
    return FrontierPoint(f"k={point.k}", latency.value, score.value, score.low, score.high)


def _pictures(folder: SweepFolder, result: SweepResult) -> Iterator[PicturePair]:
    """Yield for each LoRA the worst picture at its largest k, if that is above 0, and at the k after it."""
    pictures = [each for each in folder.read_records() if each.part == "quality" and each.picture]
    for each in result.loras:
        for k in _edge(each):
            own = [record for record in pictures if (record.lora, record.k) == (each.lora, k)]
            worst = max(own, key=lambda record: record.mean_square or 0.0, default=None)
            first = worst and next(
                (p for p in pictures if (p.lora, p.k, p.index) == (each.lora, 0, worst.index)), None
            )
            if worst and first and worst.picture and first.picture:
                yield PicturePair(
                    system=f"{each.lora}, k = {k}",
                    request_id=Path(worst.picture).stem.partition("-")[2],
                    index=0,
                    prompt="",
                    baseline=folder.path / first.picture,
                    other=folder.path / worst.picture,
                    score=f"SSIM {worst.ssim or 0:.3f}, largest difference {worst.max_levels} levels",
                )


def _edge(each: LoraResult) -> list[int]:
    ks = [point.k for point in each.points]
    following = [k for k in ks if k > each.largest_k][:1]
    return [k for k in (each.largest_k, *following) if k > 0]
