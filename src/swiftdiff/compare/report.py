"""Owns what a comparison comes to, from its runs' folders alone: tables, JSON and the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from swiftdiff.compare.folder import Attempt, CompareFolder
from swiftdiff.compare.page import make_page
from swiftdiff.compare.plan import ComparePlan
from swiftdiff.compare.sweep import read_sweep, sweep_tables, sweep_to_json
from swiftdiff.quality.quality_json import quality_json
from swiftdiff.quality.quality_report import QualityReport
from swiftdiff.report.comparison import Comparison, compare_runs
from swiftdiff.report.comparison_report import heading, tables_to_json, to_json, warnings, write_files
from swiftdiff.report.comparison_tables import comparison_tables, headline_table, raw_tables
from swiftdiff.report.html import ComparisonPage, write_html
from swiftdiff.report.measured_system import find_systems
from swiftdiff.report.quality_tables import quality_rows, quality_tables, quality_warnings
from swiftdiff.report.tables import Column, Table
from swiftdiff.report.waterfall import Step, waterfall, waterfall_table
from swiftdiff.telemetry.machine_load import MAX_IDLE_LOAD, MAX_OTHER_SHARE

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """What a comparison comes to.

    Attributes:
        heading: Paragraphs of Markdown: what is compared, and how it was measured.
        order: How systems took turns; empty of runs that were on disk.
        warnings: Sentences that stand above the tables.
        tables: In the order in which they are shown.
        rows: What is behind them.
        values: For programs.
        page: For people; None of a sweep, and where fewer than two systems could be measured.
        speedups: Lower ends of the latency speed-ups' intervals, by system; None where there is none. Steps
            of an ablation are left out.
        num_failed: Runs and requests that failed.
    """

    heading: tuple[str, ...]
    order: str
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]
    rows: tuple[Table, ...]
    values: dict[str, Any]
    page: ComparisonPage | None
    speedups: dict[str, float | None]
    num_failed: int


@dataclass(frozen=True)
class ReferenceOptions:
    """Which networks judge pictures besides, see `swiftdiff.quality.reference_metrics`.

    Attributes:
        names: Of the metrics.
        weights: Folder of their weights; None is torch's own.
    """

    names: tuple[str, ...] = ()
    weights: Path | None = None


_NO_REFERENCES = ReferenceOptions()


def report_runs(
    paths: Sequence[Path],
    *,
    baseline: str | None = None,
    references: ReferenceOptions = _NO_REFERENCES,
    force: bool = False,
) -> Report:
    """Compare runs that are on disk, a folder of runs standing for all in it.

    See `swiftdiff.report.comparison.compare_runs`.
    """
    systems = [system for path in paths for system in find_systems(path)]
    comparison = compare_runs(systems, baseline=baseline, force=force)
    return _report(comparison, references, order="", notes=(), lost=(), values={})


def report_measured(
    folder: CompareFolder,
    *,
    baseline: str | None = None,
    references: ReferenceOptions = _NO_REFERENCES,
    force: bool = False,
) -> Report:
    """Compare what was measured so far in a comparison's folder.

    Args:
        folder: The comparison's.
        baseline: In place of the plan's.
        references: Networks that judge pictures.
        force: Compare also systems that serve different things.

    Raises:
        SwiftdiffError: A run is damaged, or runs should not be compared.
    """
    plan = folder.read_plan()
    attempts = folder.read_attempts()
    lost = tuple(attempt for attempt in attempts if attempt.outcome == "failed")
    values = {
        "plan": plan.model_dump(mode="json", exclude={"systems"}),
        "measured": [attempt.model_dump(exclude_none=True) for attempt in attempts],
    }
    notes = tuple(_doubts(attempts))
    if plan.sweep is not None:
        return _report_sweep(folder, plan, notes, lost, values)
    ended = {s.name: folder.system_folder(s.name) for s in plan.systems if _has_runs(folder, s.name)}
    name = baseline or plan.baseline
    if name not in ended or len(ended) < 2:
        missing = f"the baseline {name} has no finished run" if name not in ended else f"only {name} has runs"
        return _report_too_little(f"Nothing to compare: {missing}", lost, values)
    comparison = compare_runs(list(ended.values()), baseline=name, force=force)
    report = _report(
        comparison, references, order=plan.describe_order(), notes=notes, lost=lost, values=values
    )
    judged = {name: low for name, low in report.speedups.items() if name not in plan.ablation}
    return dataclasses.replace(report, speedups=judged)


def write_report(report: Report, path: Path) -> None:
    """Write a report into a folder.

    Raises:
        StorageError: It cannot be written.
    """
    head = [*report.heading, *(f"**{warning}**" for warning in report.warnings)]
    if report.page is not None:
        write_html(path / PAGE, report.page)
    write_files(path, head, report.tables, report.rows, report.values)


def _report(
    comparison: Comparison,
    references: ReferenceOptions,
    *,
    order: str,
    notes: Sequence[str],
    lost: Sequence[Attempt],
    values: dict[str, Any],
) -> Report:
    steps = waterfall(comparison)
    qualities = _measure_quality(comparison, references)
    tables = _tables(comparison, steps, qualities, lost)
    worse = quality_warnings(qualities)
    sentences = (*warnings(comparison), *worse, *(f"Note: {note}" for note in notes))
    page = make_page(comparison, tables, sentences, steps, qualities)
    if order:
        page = dataclasses.replace(page, facts=(*page.facts, ("Order", order)))
    return Report(
        heading=(*heading(comparison), *([order] if order else [])),
        order=order,
        warnings=sentences,
        tables=tuple(tables),
        rows=(*raw_tables(comparison), *((quality_rows(qualities),) if qualities else ())),
        values={
            **to_json(comparison),
            **values,
            "order": order or None,
            "notes": list(notes),
            "waterfall": [_step_to_json(step) for step in steps],
            "quality": [quality_json(each) for each in qualities],
            "tables": tables_to_json(tables),
        },
        page=page,
        speedups={run.label: run.latency_speedup.low for run in comparison.runs[1:]},
        num_failed=len(lost) + sum(run.result.summary.failed for run in comparison.runs),
    )


def _report_sweep(
    folder: CompareFolder,
    plan: ComparePlan,
    notes: Sequence[str],
    lost: Sequence[Attempt],
    values: dict[str, Any],
) -> Report:
    sweeps = read_sweep(folder, plan)
    names = [each.system for each in sweeps]
    tables = [table for table in (*sweep_tables(sweeps, plan), _lost_table(lost)) if table.rows]
    return Report(
        heading=(
            f"# The load that {', '.join(names[:-1])} and {names[-1]} hold on {Path(plan.trace).name}",
            f"Model {plan.systems[0].model} on {plan.systems[0].device}. Trace SHA-256 "
            f"`{plan.trace_sha256}`.",
        ),
        order="Systems in turn, one rate each.",
        warnings=tuple(f"Note: {note}" for note in notes),
        tables=tuple(tables),
        rows=(),
        values=values | {"sweep": sweep_to_json(sweeps, plan), "tables": tables_to_json(tables)},
        page=None,
        speedups={},
        num_failed=len(lost),
    )


def _report_too_little(reason: str, lost: Sequence[Attempt], values: dict[str, Any]) -> Report:
    return Report(
        heading=("# No comparison",),
        order="",
        warnings=(f"{reason}.",),
        tables=tuple(table for table in (_lost_table(lost),) if table.rows),
        rows=(),
        values=values | {"comparable": False, "obstacles": [reason]},
        page=None,
        speedups={},
        num_failed=len(lost),
    )


def _tables(
    comparison: Comparison, steps: Sequence[Step], qualities: Sequence[QualityReport], lost: Sequence[Attempt]
) -> list[Table]:
    tables = {table.name: table for table in comparison_tables(comparison)}
    measured = quality_tables(qualities)
    if measured:
        tables.pop("pictures", None)  # the same and more is in them
    failures = tables.pop("failures", None)
    verdicts, measured = measured[:1], measured[1:]  # how fast, and is it the same picture: both come first
    ordered = [headline_table(comparison), *verdicts, *tables.values(), waterfall_table(steps), *measured]
    ordered += [failures] if failures is not None else []
    return [table for table in (*ordered, _lost_table(lost)) if table.rows]


def _measure_quality(comparison: Comparison, references: ReferenceOptions) -> list[QualityReport]:
    """Measure each system's pictures beside those of the baseline's first repeat; none without pictures."""
    from swiftdiff.compare.quality import measure_quality
    from swiftdiff.quality.picture_judge import PictureJudge

    baseline, judge = comparison.baseline, PictureJudge()
    before = next(iter(baseline.system.runs.values()))[0].path
    reports = []
    for run in comparison.runs[1:]:
        if run.pictures is not None and run.pictures.pairs:
            after = (folder.path for folder, _ in run.system.runs.values())
            report = measure_quality(
                before, *after, judge=judge, references=references.names, weights=references.weights
            )
            reports.append(dataclasses.replace(report, baseline=baseline.label, system=run.label))
    return reports


def _has_runs(folder: CompareFolder, system: str) -> bool:
    place = folder.system_folder(system)
    return place.is_dir() and any(folder.is_finished(each) for each in place.iterdir())


def _lost_table(lost: Sequence[Attempt]) -> Table:
    columns = (Column("system"), Column("run"), Column("reason"))
    rows = tuple((attempt.system, attempt.place, attempt.reason) for attempt in lost)
    note = "A system that failed is not tried again until the comparison is resumed."
    return Table("failed-runs", "Runs that failed", columns, rows, note)


def _doubts(attempts: Sequence[Attempt]) -> list[str]:
    """Return why times are worth less than they seem."""
    if not attempts:
        return []
    load = max(attempt.load_1min for attempt in attempts[:1])  # later ones hold the comparison's own
    shares = [attempt.other_share for attempt in attempts]
    causes = []
    if load > MAX_IDLE_LOAD:
        causes.append(f"its load average was {load:.2f} at the start")
    if median(shares) > MAX_OTHER_SHARE:
        causes.append(
            f"other processes kept {median(shares):.2f} cores busy meanwhile (at most {max(shares):.2f})"
        )
    return [f"MACHINE NOT IDLE: {', and '.join(causes)}. These times are worth little."] if causes else []


def _step_to_json(step: Step) -> dict[str, Any]:
    return {
        "system": step.run.label,
        "switched_on": step.label,
        "mean_latency_s": step.latency_s.as_dict(),
        "times_as_fast_as_step_before": None if step.gain is None else step.gain.as_dict(),
    }
