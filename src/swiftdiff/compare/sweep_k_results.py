"""Turns what a sweep of k recorded into estimates, and decides the largest k of each LoRA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swiftdiff.compare.sweep_k_folder import Subject, SweepFolder, SweepRecord
from swiftdiff.compare.sweep_k_options import Measure, SweepOptions
from swiftdiff.compare.sweep_k_session import is_judged
from swiftdiff.quality.quality_report import psnr_db
from swiftdiff.quality.statistics import Estimate, bootstrap_mean

MEASURES: tuple[Measure, ...] = ("style", "attributes", "ssim")


@dataclass(frozen=True)
class Point:
    """What one k comes to, of one LoRA or of all.

    Attributes:
        k: Steps that began without the LoRA.
        scores: Means by measure, each with a 95 % interval; without those that could not be judged.
        drops: How much lower than at k = 0, paired by request, with 95 % intervals; for ``ssim`` how far
            below 1.
        psnr_db: Of the mean squared difference from the pictures at k = 0; infinite if they are the same.
        mean_levels: Mean difference from them, in levels of 255; None without pictures.
        max_levels: Largest difference; None without pictures.
        latency: Mean seconds from arrival to picture; None if it was not measured.
        wait_s: Of that, mean seconds of standing still for the LoRA.
        load_s: Mean seconds until the LoRA was ready.
        landed: How often the LoRA was patched at which step, while latency was measured.
    """

    k: int
    scores: dict[Measure, Estimate]
    drops: dict[Measure, Estimate]
    psnr_db: float | None
    mean_levels: float | None
    max_levels: int | None
    latency: Estimate | None
    wait_s: float | None
    load_s: float | None
    landed: dict[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return the fields; an infinite PSNR is None."""
        is_finite = self.psnr_db is not None and self.psnr_db < float("inf")
        return {
            **asdict(self),
            "scores": {name: score.as_dict() for name, score in self.scores.items()},
            "drops": {name: drop.as_dict() for name, drop in self.drops.items()},
            "psnr_db": self.psnr_db if is_finite else None,
            "latency": self.latency and self.latency.as_dict(),
        }


@dataclass(frozen=True)
class LoraResult:
    """What one LoRA comes to.

    Attributes:
        lora: Its id.
        points: By k, rising; without those that were not measured.
        margin: What may be lost, by measure.
        largest_k: Largest k that keeps within the margin, as all smaller ones that were measured do.
        reason: Why the next one does not; None if all do.
        error: Why it could not be measured, or None.
    """

    lora: str
    points: tuple[Point, ...]
    margin: dict[Measure, float]
    largest_k: int
    reason: str | None
    error: str | None

    def point(self, k: int) -> Point | None:
        """Return what one k comes to, None if it was not measured."""
        return next((point for point in self.points if point.k == k), None)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep comes to.

    Attributes:
        options: What was asked for.
        subject: What was measured; None if the model was never loaded.
        loras: By LoRA.
        overall: All LoRAs together, by k.
        complete: Whether nothing is left to measure.
    """

    options: SweepOptions
    subject: Subject | None
    loras: tuple[LoraResult, ...]
    overall: tuple[Point, ...]
    complete: bool

    @property
    def failures(self) -> list[str]:
        """One sentence for each LoRA that could not be measured."""
        return [f"{each.lora}: {each.error}" for each in self.loras if each.error is not None]

    @property
    def margin(self) -> dict[Measure, float]:
        """What may be lost, by measure, of all LoRAs that could be measured."""
        measured = [each.margin for each in self.loras if each.error is None]
        return {name: share for margin in measured for name, share in margin.items()}

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``."""
        options, subject = self.options, self.subject
        return {
            "complete": self.complete,
            "model": options.config.model,
            "weights_sha256": subject and subject.weights_sha256,
            "lora_sha256": subject and subject.lora_sha256,
            "scheduler": options.config.scheduler,
            "num_inference_steps": options.num_inference_steps,
            "ks": list(options.ks),
            "prompts": options.prompts,
            "repeats": options.repeats,
            "seed": options.seed,
            "trace_sha256": options.trace_sha256,
            "load_time_ms": options.load_time_ms,
            "margin": self.margin,
            "loras": {
                each.lora: {
                    "largest_k": each.largest_k,
                    "reason": each.reason,
                    "error": each.error,
                    "margin": each.margin,
                    "points": [point.to_json() for point in each.points],
                }
                for each in self.loras
            },
            "overall": [point.to_json() for point in self.overall],
        }


def read_result(folder: SweepFolder, *, complete: bool) -> SweepResult:
    """Return what the records in a sweep's folder come to.

    Raises:
        StorageError: The folder is damaged.
    """
    options = folder.read_options()
    records = folder.read_records()
    loras = tuple(_lora_result(lora, options, records) for lora in options.loras)
    overall = tuple(_points([record for record in records if record.error is None], options.ks))
    return SweepResult(options, folder.read_subject(), loras, overall, complete)


def _lora_result(lora: str, options: SweepOptions, records: Iterable[SweepRecord]) -> LoraResult:
    own = [record for record in records if record.lora == lora]
    good = [record for record in own if record.error is None]
    # A resumed sweep may have measured what once failed.
    is_done = {(record.part, record.k, record.index) for record in good}
    errors = [r.error for r in own if r.error is not None and (r.part, r.k, r.index) not in is_done]
    points = tuple(_points(good, options.ks))
    margin = options.margin_of(is_judged(options, lora))
    largest_k, reason = _decide(points, margin)
    return LoraResult(lora, points, margin, largest_k, reason, errors[0] if errors else None)


def _points(records: Sequence[SweepRecord], ks: Sequence[int]) -> Iterable[Point]:
    quality = {(r.lora, r.index, r.k): r for r in records if r.part == "quality"}
    for k in ks:
        pairs = [
            (quality[lora, index, 0], record)
            for (lora, index, at), record in quality.items()
            if at == k and (lora, index, 0) in quality
        ]
        timed = [record for record in records if record.part == "latency" and record.k == k]
        if pairs or timed:
            yield _point(k, pairs, timed)


def _point(k: int, pairs: Sequence[tuple[SweepRecord, SweepRecord]], timed: Sequence[SweepRecord]) -> Point:
    scores: dict[Measure, Estimate] = {}
    drops: dict[Measure, Estimate] = {}
    for name in MEASURES:
        values = [
            (1.0 if name == "ssim" else getattr(before, name), getattr(after, name), after.index)
            for before, after in pairs
            if getattr(before, name) is not None and getattr(after, name) is not None
        ]
        if values:
            prompts = [index for _, _, index in values]  # LoRAs share them: drawn whole
            scores[name] = bootstrap_mean([after for _, after, _ in values], groups=prompts)
            drops[name] = bootstrap_mean([before - after for before, after, _ in values], groups=prompts)
    squares = [after.mean_square for _, after in pairs if after.mean_square is not None]
    levels = [after.mean_levels for _, after in pairs if after.mean_levels is not None]
    latencies = _known(record.latency_s for record in timed)
    return Point(
        k=k,
        scores=scores,
        drops=drops,
        psnr_db=psnr_db(sum(squares) / len(squares)) if squares else None,
        mean_levels=sum(levels) / len(levels) if levels else None,
        max_levels=max((r.max_levels for _, r in pairs if r.max_levels is not None), default=None),
        latency=bootstrap_mean(latencies) if latencies else None,
        wait_s=_mean(record.wait_s for record in timed),
        load_s=_mean(record.load_s for record in timed),
        landed=dict(sorted(Counter(r.step_patched for r in timed if r.step_patched is not None).items())),
    )


def _decide(points: Sequence[Point], margin: dict[Measure, float]) -> tuple[int, str | None]:
    """Return the largest k up to which every k keeps within the margin, and why the next does not."""
    largest = 0
    for point in points:
        for name, share in margin.items():
            drop = point.drops.get(name)
            if drop is None:
                return largest, f"{name} cannot be judged"
            if drop.high > share:
                return largest, f"k={point.k}: {name} –{drop.value:.3f} (to {drop.high:.3f})"
        largest = point.k
    return largest, None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None
