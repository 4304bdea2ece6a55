"""The tables of pictures must fit a terminal, and warn where a reader must be warned."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from swiftdiff.cli.terminal import print_table
from swiftdiff.quality.picture_judge import PictureScores
from swiftdiff.quality.quality_report import PictureQuality, PixelDifference, QualityReport, ReferenceScore
from swiftdiff.quality.statistics import Estimate
from swiftdiff.report.quality_tables import quality_rows, quality_tables
from swiftdiff.report.tables import to_csv


def report(
    system: str, *, loss: float = 0.0, levels: int = 0, judged: bool = True, **fields: object
) -> QualityReport:
    noise = np.random.default_rng(0).normal(0, 0.03, 12)
    before = PictureScores(0.95, 0.9, 0.97) if judged else PictureScores()
    pictures = tuple(
        PictureQuality(
            f"r{number}",
            0,
            0,
            PixelDifference(1 - loss / 2, float(levels**2) / 3, levels, levels / 5),
            before,
            PictureScores(0.95 - loss, 0.9, 0.97 - 2 * loss + noise[number]) if judged else before,
        )
        for number in range(12)
    )
    return QualityReport("diffusers", system, "approximate", pictures, **fields)  # type: ignore[arg-type]


def shown(*reports: QualityReport) -> str:
    console = Console(file=io.StringIO(), width=80)
    for table in quality_tables(reports):
        print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_baseline_and_three_systems_fit_80_columns_a_row_a_line() -> None:
    text = shown(report("swiftdiff"), report("nirvana-10", loss=0.2, levels=200), report("swiftdiff-bal"))
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    (style,) = [line.split() for line in lines if line.startswith("style score ")]
    assert style[2] == "0.970"
    assert len(style) == 6
    assert sum(line.startswith("  95 %") for line in lines) == 6


def test_only_what_a_reader_must_be_warned_of_is_marked() -> None:
    text = shown(report("good"), report("bad", loss=0.3, levels=90))
    (good,) = [line for line in text.splitlines() if line.startswith("good ")]
    (bad,) = [line for line in text.splitlines() if line.startswith("bad ")]
    assert "⚠" not in good
    assert "identical pictures (12)" in good
    assert "⚠ differs" in bad


def test_without_judges_there_is_no_table_of_scores_but_the_reason() -> None:
    text = shown(report("mine", judged=False, notes=("judges know pictures of shapes only, not of sdxl",)))
    assert "What judges see" not in text
    assert "Judges know pictures of shapes only, not of sdxl." in text


def test_networks_scores_stand_beside_the_judges() -> None:
    clip = ReferenceScore(
        "CLIP score", Estimate(31, 30, 32, 12), Estimate(29, 28, 30, 12), Estimate(-2, -2.5, -1.5, 12)
    )
    fid = ReferenceScore("FID", None, Estimate(4.2, 4.2, 4.2, 12), None)
    text = shown(report("mine", judged=False, references=(clip, fid)))
    assert "[−2.500, −1.500]" in text
    (line,) = [line for line in text.splitlines() if line.startswith("FID")]
    assert line.split() == ["FID", "–", "4.20"]


def test_pictures_that_could_not_be_compared_are_named() -> None:
    assert "x-0.png is not there" in shown(report("mine", unpaired=1, problems=("x-0.png is not there",)))


def test_every_picture_has_a_row_of_raw_numbers() -> None:
    lines = to_csv(quality_rows([report("one"), report("two", loss=0.1, levels=9)])).splitlines()
    assert len(lines) == 1 + 24
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert (row["request_id"], row["repeat"], row["system"], row["max_levels"]) == ("r11", "1", "two", "9")
    assert float(row["attributes_system"]) == pytest.approx(0.85)


def test_no_systems_have_no_tables() -> None:
    assert quality_tables([]) == []
