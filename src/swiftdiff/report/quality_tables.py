"""Owns the tables that say whether systems' pictures are still the baseline's: a column a system."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from swiftdiff.quality.picture_judge import SCORE_NAMES
from swiftdiff.quality.quality_report import QualityReport, ScoreChange
from swiftdiff.quality.statistics import Estimate
from swiftdiff.quality.verdict import signed, verdict_of
from swiftdiff.report.tables import AUTO, Cell, Column, Table

INTERVAL = "  95 %"
_Row = tuple[Cell, ...]


def quality_tables(reports: Sequence[QualityReport]) -> list[Table]:
    """Return the tables of systems measured against one baseline; one that would be empty is left out."""
    if not reports:
        return []
    tables = [_verdict_table(reports), _pixel_table(reports), _score_table(reports), _problem_table(reports)]
    return [table for table in tables if table.rows]


def quality_warnings(reports: Sequence[QualityReport]) -> list[str]:
    """Return a sentence for each system whose pictures are worse by more than chance."""
    verdicts = [(report, verdict_of(report)) for report in reports]
    return [
        f"The pictures of {report.system} are worse than those of {report.baseline}: "
        + verdict.text.removeprefix("differs: ")
        for report, verdict in verdicts
        if verdict.kind == "differs"
    ]


def quality_rows(reports: Sequence[QualityReport]) -> Table:
    """Return the rows behind the numbers: one a picture, repeat and system."""
    rows = tuple(
        (
            *(each.request_id, each.index, each.repeat + 1, report.system),
            *(each.pixels.ssim, each.pixels.psnr_db, each.pixels.max_levels, each.pixels.mean_levels),
            *(getattr(scores, name) for name in SCORE_NAMES for scores in (each.before, each.after)),
        )
        for report in reports
        for each in report.pictures
    )
    scores = [f"{name}_{side}" for name in SCORE_NAMES for side in ("baseline", "system")]
    names = ("ssim", "psnr_db", "max_levels", "mean_levels", *scores)
    columns = (
        Column("request_id"),
        Column("index", AUTO),
        Column("repeat", AUTO),
        Column("system"),
        *(Column(name, AUTO) for name in names),
    )
    return Table("quality_pictures", "Pictures", columns, rows)


def _verdict_table(reports: Sequence[QualityReport]) -> Table:
    rows = []
    for report in reports:
        verdict = verdict_of(report)
        rows.append((report.system, report.exactness, ("⚠ " if verdict.is_flagged else "") + verdict.text))
    columns = (Column("system"), Column("declared"), Column("pictures"))
    title = f"Is it still the picture of {reports[0].baseline}?"
    notes = sorted({f"{note[0].upper()}{note[1:]}." for report in reports for note in report.notes})
    return Table("verdicts", title, columns, tuple(rows), " ".join(notes))


def _pixel_table(reports: Sequence[QualityReport]) -> Table:
    measures: list[tuple[str, Callable[[QualityReport], Cell]]] = [
        ("pictures compared", lambda report: len(report.pictures)),
        ("without a pair", lambda report: report.unpaired or None),
        ("identical", lambda report: report.identical),
        ("within 1 level", lambda report: report.within_rounding),
        ("SSIM, mean", lambda report: _value(report.ssim)),
        (INTERVAL, lambda report: _interval(report.ssim, 3)),
        ("SSIM, lowest", lambda report: None if report.worst is None else report.worst.pixels.ssim),
        ("PSNR, dB", lambda report: _value(report.psnr_db)),
        (INTERVAL, lambda report: _interval(report.psnr_db, 1)),
        ("largest difference", lambda report: report.max_levels),
        ("mean difference", lambda report: _value(report.mean_levels)),
        (INTERVAL, lambda report: _interval(report.mean_levels, 2)),
    ]
    rows = [(name, *(measure(report) for report in reports)) for name, measure in measures]
    columns = (Column("pixels"), *(Column(report.system, AUTO) for report in reports))
    note = (
        "Intervals by bootstrap over requests. Differences in levels from 0 to 255 of red, green and blue; "
        "PSNR of the mean square."
    )
    title = f"Pictures beside those of {reports[0].baseline}"
    return Table("quality", title, columns, _shown(rows), note)


def _score_table(reports: Sequence[QualityReport]) -> Table:
    """The baseline's means are those of the first system's pairs: all systems have them unless one failed."""
    rows: list[_Row] = []
    for index, name in enumerate(SCORE_NAMES.values()):
        rows += _score_rows(name.removeprefix("control "), [report.scores[index] for report in reports])
    for name in dict.fromkeys(each.name for report in reports for each in report.references):
        found = [{each.name: each for each in report.references}.get(name) for report in reports]
        before = next((each.before for each in found if each and each.before), None)
        rows += _change_rows(
            name,
            before,
            [each.after if each else None for each in found],
            [each.change if each else None for each in found],
        )
    names = (reports[0].baseline, *(report.system for report in reports))
    columns = (Column("scores"), *(Column(name, AUTO) for name in names))
    notes = ["A change is the mean over pairs, its interval by bootstrap over requests."]
    if any(each.judged for report in reports for each in report.scores):
        notes.insert(
            0,
            "0 to 1, higher is better: how much of its caption a picture shows, how well it follows its "
            "control images, how surely it is in its LoRA's style.",
        )
    return Table("scores", "What judges see", columns, _shown(rows), " ".join(notes))


def _score_rows(name: str, scores: Sequence[ScoreChange]) -> list[_Row]:
    before = next((each.before for each in scores if each.before), None)
    if before is None:
        return []
    return [
        *_change_rows(name, before, [each.after for each in scores], [each.change for each in scores]),
        ("  judged", None, *(each.judged for each in scores)),
        ("  not judged", None, *(each.not_judged for each in scores)),
    ]


def _change_rows(
    name: str,
    before: Estimate | None,
    after: Sequence[Estimate | None],
    changes: Sequence[Estimate | None],
) -> list[_Row]:
    return [
        (name, _value(before), *map(_value, after)),
        ("  change", None, *(signed(each.value, 3) if each else None for each in changes)),
        (INTERVAL, None, *(_interval(each, 3, is_change=True) for each in changes)),
    ]


def _problem_table(reports: Sequence[QualityReport]) -> Table:
    rows = tuple((report.system, problem) for report in reports for problem in report.problems)
    columns = (Column("system"), Column("why"))
    return Table("quality_problems", "Pictures that could not be compared", columns, rows)


def _shown(rows: Sequence[_Row]) -> tuple[_Row, ...]:
    """Return the rows in which any system has a value."""
    return tuple(row for row in rows if any(cell is not None for cell in row[1:]))


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _interval(estimate: Estimate | None, digits: int, *, is_change: bool = False) -> Cell:
    if estimate is None or math.isinf(estimate.value):
        return None
    ends = (estimate.low, estimate.high)
    return f"[{', '.join(signed(end, digits) if is_change else f'{end:.{digits}f}' for end in ends)}]"
