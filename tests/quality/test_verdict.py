"""The first line that a user reads must not call a broken system the same, nor an exact one broken."""

from __future__ import annotations

import json

import numpy as np

from swiftdiff.quality.picture_judge import PictureScores
from swiftdiff.quality.quality_json import quality_json
from swiftdiff.quality.quality_report import PictureQuality, PixelDifference, QualityReport
from swiftdiff.quality.verdict import Verdict, signed, verdict_of

SAME = PixelDifference(1.0, 0.0, 0, 0.0)
ROUNDED = PixelDifference(0.9999, 0.01, 1, 0.01)
OTHER = PixelDifference(0.9, 30.0, 40, 3.0)


def report(
    *pixels: PixelDifference,
    style: tuple[float, float] | None = None,
    exactness: str = "exact",
    unpaired: int = 0,
) -> QualityReport:
    """A report whose style scores fall from the first to the second, give or take a little."""
    noise = np.random.default_rng(0).normal(0, 0.02, len(pixels))
    pictures = tuple(
        PictureQuality(
            f"r{number}",
            0,
            0,
            difference,
            PictureScores(style=style and style[0]),
            PictureScores(style=style and style[1] + float(noise[number])),
        )
        for number, difference in enumerate(pixels)
    )
    return QualityReport("stock", "mine", exactness, pictures, unpaired)


def test_identical_pictures_are_the_same() -> None:
    assert verdict_of(report(SAME, SAME)) == Verdict("same", "identical pictures (2)", False)


def test_rounding_is_the_same_whatever_is_declared() -> None:
    for exactness in ("exact", "approximate"):
        found = verdict_of(report(SAME, ROUNDED, exactness=exactness))
        assert found == Verdict("same", "same pictures within 1/255 (2)", False)


def test_an_exact_system_whose_pictures_differ_is_broken() -> None:
    found = verdict_of(report(SAME, OTHER, ROUNDED))
    assert found == Verdict("broken", "NOT EXACT: 1 of 3 pictures differ, by up to 40/255", True)


def test_an_approximate_system_is_flagged_when_a_score_falls_by_more_than_chance() -> None:
    found = verdict_of(report(*[OTHER] * 12, style=(0.9, 0.6), exactness="approximate"))
    assert found.kind == "differs"
    assert found.is_flagged
    assert found.text.startswith("differs: style score −0.3")
    assert found.text.endswith("]")


def test_an_approximate_system_that_costs_nothing_is_alike_and_says_what_it_might_cost() -> None:
    found = verdict_of(report(*[OTHER] * 12, style=(0.9, 0.9), exactness="approximate"))
    assert (found.kind, found.is_flagged) == ("alike", False)
    assert found.text.startswith("alike: SSIM 0.90 [0.90, 0.90]; at worst style score −0.0")


def test_a_score_that_rises_is_no_fault() -> None:
    found = verdict_of(report(*[OTHER] * 12, style=(0.5, 0.9), exactness="approximate"))
    assert found == Verdict("alike", "alike: SSIM 0.90 [0.90, 0.90]; no score fell", False)


def test_without_judges_nothing_is_claimed() -> None:
    found = verdict_of(report(OTHER, OTHER, exactness="approximate"))
    assert found == Verdict("alike", "other pixels, not judged: SSIM 0.90 [0.90, 0.90]", False)


def test_no_pictures_are_no_agreement() -> None:
    assert verdict_of(report()) == Verdict("unknown", "no pictures to compare", True)


def test_a_system_that_fails_most_requests_is_not_passed_for_the_few_that_it_served() -> None:
    found = verdict_of(report(SAME, unpaired=3))
    assert found == Verdict("same", "identical pictures (1); 3 pictures without a pair", True)


def test_changes_are_signed_with_a_real_minus_and_nothing_has_no_sign() -> None:
    assert [signed(value) for value in (0.3, -0.314, -0.001, 0.0)] == ["+0.30", "−0.31", "0.00", "0.00"]


def test_a_report_is_plain_json() -> None:
    found = json.loads(json.dumps(quality_json(report(SAME, SAME)), allow_nan=False))
    assert found["psnr_db"]["value"] is None
    assert found["verdict"]["kind"] == "same"
    assert found["scores"]["style"] == {
        **{"judged": 0, "not_judged": 2, "baseline": None, "system": None, "change": None}
    }
