"""Writes a trace's statistics down: Markdown, CSV, one page of plots and, last of all, JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from swiftdiff import files
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.errors import StorageError
from swiftdiff.report.tables import to_csv, to_markdown
from swiftdiff.report.trace_plots import draw_trace
from swiftdiff.report.trace_tables import raw_trace_tables, trace_tables
from swiftdiff.trace import Provenance, Source
from swiftdiff.trace.statistics import AdapterStatistics, TraceStatistics
from swiftdiff.trace.transform import all_filled_in

REPORT = "statistics.md"
SUMMARY = "statistics.json"
PLOT = "statistics.png"
TABLES = "tables"


def check_free(path: Path) -> None:
    """Raise StorageError if statistics cannot go into ``path``: it holds anything but earlier ones."""
    files.check_free(path, replaces=REPORT)


def write_statistics(
    statistics: TraceStatistics, source: Source, provenance: Provenance | None, path: Path
) -> None:
    """Write the statistics of a trace into a folder, which is made.

    Raises:
        StorageError: It cannot be written.
    """
    folder = RunFolder(path)  # not a run's, but written as safely
    tables = trace_tables(statistics)
    for table in (*tables, *raw_trace_tables(statistics)):
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    head = [f"# {source.name}", "", f"SHA-256 `{source.sha256}`.", *origin(provenance)]
    parts = ["\n".join(head) + "\n", *(to_markdown(table) for table in tables), f"![statistics]({PLOT})\n"]
    folder.write_text(REPORT, "\n".join(parts))
    try:
        draw_trace(statistics, source.name, path / PLOT)
    except OSError as error:
        raise StorageError(f"cannot write {path / PLOT}: {error.strerror or error}") from error
    folder.write_json(SUMMARY, to_json(statistics, source, provenance))


def origin(provenance: Provenance | None) -> list[str]:
    """Return the sentences that say how the trace was made, as far as it tells."""
    if provenance is None:
        return []
    made_up = ", ".join(sorted(all_filled_in(provenance)))
    filled = f" Filled in, not in its source: {made_up}." if made_up else ""
    return [f"Made by swiftdiff {provenance.command}.{filled}"]


def to_json(statistics: TraceStatistics, source: Source, provenance: Provenance | None) -> dict[str, Any]:
    """Return the statistics for programs: times in seconds, shares from 0 to 1, what does not exist null."""
    return {
        "trace": source.model_dump(),
        "provenance": None if provenance is None else provenance.model_dump(mode="json"),
        "arrivals": asdict(statistics.arrivals),
        "adapters_per_request": asdict(statistics.adapter_counts),
        "loras": _kind_to_json(statistics.loras),
        "controlnets": _kind_to_json(statistics.controlnets),
    }


def _kind_to_json(kind: AdapterStatistics | None) -> dict[str, Any] | None:
    if kind is None:
        return None
    curves = {"lru": kind.lru, "lfu": kind.lfu}
    return {
        "num_ids": kind.num_ids,
        "num_uses": kind.num_uses,
        "uses_by_rank": kind.popularity.uses,
        "reuse_distance": kind.reuse_distance,
        "reuse_time_s": kind.reuse_time_s,
        "churn": asdict(kind.churn),
        **{
            name: {
                "cache_size": curve.sizes,
                "hits": curve.hits,
                "hit_rate": [kind.rates(hits)[0] for hits in curve.hits],
                "hit_rate_of_reuses": [kind.rates(hits)[1] for hits in curve.hits],
            }
            for name, curve in curves.items()
        },
    }
