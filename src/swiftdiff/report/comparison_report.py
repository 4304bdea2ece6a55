"""Writes a comparison down: Markdown, CSV and, last of all, JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import StorageError
from swiftdiff.report.comparison import ComparedRun, Comparison
from swiftdiff.report.comparison_tables import comparison_tables, raw_tables
from swiftdiff.report.tables import to_csv, to_markdown

REPORT = "comparison.md"
SUMMARY = "comparison.json"
TABLES = "tables"


def check_free(path: Path) -> None:
    """Raise StorageError if a comparison cannot go into ``path``: it holds anything but an earlier one."""
    try:
        occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise StorageError(f"cannot look into {path}: {error.strerror or error}") from error
    if occupied and not (path / REPORT).is_file():
        raise StorageError(f"--out {path} is not empty; name another")


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write a comparison into a folder, which is made.

    Raises:
        StorageError: It cannot be written.
    """
    folder = RunFolder(path)  # not a run's, but written as safely
    for table in (*comparison_tables(comparison), *raw_tables(comparison)):
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    folder.write_text(REPORT, _to_markdown(comparison))
    folder.write_json(SUMMARY, to_json(comparison))


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


def _to_markdown(comparison: Comparison) -> str:
    info = comparison.baseline.result.info
    labels = [run.label for run in comparison.runs]
    head = [
        f"# {', '.join(labels[:-1])} and {labels[-1]} on {Path(info.trace).name}",
        "",
        f"Baseline {labels[0]}. Load: {info.options.load.describe()}. Model {info.model} on {info.device}. "
        f"Trace SHA-256 `{info.trace_sha256}`.",
        "",
        *(f"- {run.label}: run of {run.result.info.started_at}" for run in comparison.runs),
    ]
    for warning in warnings(comparison):
        head += ["", f"**{warning}**"]
    return "\n".join(
        ("\n".join(head) + "\n", *(to_markdown(table) for table in comparison_tables(comparison)))
    )
