"""Turns quality reports into JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from .quality_report import QualityReport, ReferenceScore, ScoreChange
from .statistics import Estimate
from .verdict import verdict_of


def quality_json(report: QualityReport) -> dict[str, Any]:
    """The estimates of a report, without the pictures behind them; what is infinite is null."""
    worst = report.worst
    return {
        "baseline": report.baseline,
        "system": report.system,
        "exactness": report.exactness,
        "verdict": asdict(verdict_of(report)),
        "pictures": len(report.pictures),
        "unpaired": report.unpaired,
        "identical": report.identical,
        "within_rounding": report.within_rounding,
        "ssim": _estimate(report.ssim),
        "psnr_db": _estimate(report.psnr_db),
        "max_levels": report.max_levels,
        "mean_levels": _estimate(report.mean_levels),
        "worst": worst and {"request_id": worst.request_id, "index": worst.index, "ssim": worst.pixels.ssim},
        "scores": {
            each.name: {"judged": each.judged, "not_judged": each.not_judged} | _changes(each)
            for each in report.scores
        },
        "references": {each.name: _changes(each) for each in report.references},
        "problems": list(report.problems),
        "notes": list(report.notes),
    }


def _changes(score: ScoreChange | ReferenceScore) -> dict[str, Any]:
    return {
        "baseline": _estimate(score.before),
        "system": _estimate(score.after),
        "change": _estimate(score.change),
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in estimate.as_dict().items()}
