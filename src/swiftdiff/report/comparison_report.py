"""Writes a comparison down: Markdown, CSV and, last of all, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swiftdiff import files
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.report.comparison import ComparedRun, Comparison
from swiftdiff.report.tables import Table, to_csv, to_markdown

REPORT = "comparison.md"
SUMMARY = "comparison.json"
TABLES = "tables"


def check_free(path: Path) -> None:
    """Raise StorageError if a comparison cannot go into ``path``: it holds anything but an earlier one."""
    files.check_free(path, replaces=REPORT)


def write_files(
    path: Path, head: Sequence[str], tables: Sequence[Table], rows: Sequence[Table], values: dict[str, Any]
) -> None:
    """Write a comparison into a folder, which is made: the tables, then ``comparison.json``, last.

    Args:
        path: The folder.
        head: Paragraphs above the tables.
        tables: For the Markdown, and each as CSV.
        rows: As CSV only: what is behind the tables.
        values: For the JSON.

    Raises:
        StorageError: It cannot be written.
    """
    folder = RunFolder(path)  # not a run's, but written as safely
    for table in (*tables, *rows):
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    folder.write_text(REPORT, "\n".join(("\n\n".join(head) + "\n", *map(to_markdown, tables))))
    folder.write_json(SUMMARY, values)


def tables_to_json(tables: Sequence[Table]) -> dict[str, list[dict[str, Any]]]:
    """Return tables for programs: a list of rows each, by the table's name; what is infinite is null."""
    return {table.name: _rows_to_json(table) for table in tables}


def _rows_to_json(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [
        {
            name: _finite(cell) if isinstance(cell, float) else cell
            for name, cell in zip(names, row, strict=True)
        }
        for row in table.rows
    ]


def warnings(comparison: Comparison) -> list[str]:
    """Return the sentences that stand above the tables."""
    forced = [f"NOT COMPARABLE, shown because of --force: {obstacle}." for obstacle in comparison.obstacles]
    return forced + [f"Note: {caveat}." for caveat in comparison.caveats]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for programs: each run under the keys of ``summary.json``, and its speed-ups."""
    return {
        "baseline": comparison.baseline.label,
        "comparable": not comparison.obstacles,
        "obstacles": list(comparison.obstacles),
        "caveats": list(comparison.caveats),
        "runs": [_run_to_json(run) for run in comparison.runs],
    }


def _run_to_json(run: ComparedRun) -> dict[str, Any]:
    pictures = run.pictures
    service = run.service
    return {
        "label": run.label,
        "folder": str(run.folder),
        "repeats": {number: str(folder.path) for number, (folder, _) in run.system.runs.items()},
        **run.result.to_json(),
        "mean_service_ms": None if service is None else service.mean,
        "median_service_ms": None if service is None else service.median,
        "mean_lora_wait_ms": run.lora_wait_ms,
        "num_paired": run.num_paired,
        "speedup": {
            "latency": asdict(run.latency_speedup),
            "service": asdict(run.service_speedup),
            "service_and_restore": asdict(run.occupied_speedup),
        },
        "pictures": None
        if pictures is None
        else {
            "compared": len(pictures.pairs),
            "identical": pictures.identical,
            "max_abs": pictures.max_abs,
            "mean_abs": pictures.mean_abs,
            "psnr_db": _finite(pictures.psnr_db),
            "problems": list(pictures.problems),
        },
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value  # JSON has no infinity


def heading(comparison: Comparison) -> list[str]:
    """Return the paragraphs of Markdown that say what is compared."""
    info = comparison.baseline.result.info
    labels = [run.label for run in comparison.runs]
    return [
        f"# {', '.join(labels[:-1])} and {labels[-1]} on {Path(info.trace).name}",
        f"Baseline {labels[0]}. Load: {info.options.load.describe()}. Model {info.model} on {info.device}. "
        f"Trace SHA-256 `{info.trace_sha256}`.",
        "\n".join(f"- {run.label}: run of {run.result.info.started_at}" for run in comparison.runs),
    ]
