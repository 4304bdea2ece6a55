"""Writes a world's benchmark down: tables, ``report.md`` and ``summary.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from swiftdiff.quality.statistics import Estimate
from swiftdiff.report.machine_lines import begin_line, machine_lines
from swiftdiff.report.tables import Cell, Column, Table, to_csv, to_markdown
from swiftdiff.world.bench.folder import ENVIRONMENT, WorldBenchFolder
from swiftdiff.world.bench.results import Finding, WorldBenchResult, compute_result, doubts_of
from swiftdiff.world.drift.run import DriftSummary

REPORT: Final = "report.md"
TABLES: Final = "tables"
SUMMARY: Final = "summary.json"


def write_bench_report(folder: WorldBenchFolder, *, complete: bool) -> WorldBenchResult:
    """Compute a benchmark's numbers from what is on disk and write them down.

    Raises:
        StorageError: The folder is damaged or cannot be written.
    """
    # until the new one is there, nothing claims to be complete
    (folder.path / SUMMARY).unlink(missing_ok=True)
    result = read_bench_result(folder, complete=complete)
    tables = bench_tables(result)
    for table in tables:
        folder.write_text(f"{TABLES}/{table.name}.csv", to_csv(table))
    head = ["# Benchmark of a world", "", *(f"- {line}" for line in header(result))]
    folder.write_text(REPORT, "\n\n".join(["\n".join(head), *(to_markdown(table) for table in tables)]))
    folder.write_json(SUMMARY, result.to_json())
    return result


def read_bench_result(folder: WorldBenchFolder, *, complete: bool) -> WorldBenchResult:
    """Return what the measurements on disk come to.

    Raises:
        StorageError: The folder is damaged.
    """
    return compute_result(
        folder.read_options(), folder.read_json(ENVIRONMENT), folder.read_rows(), complete=complete
    )


def header(result: WorldBenchResult) -> list[str]:
    """Return the lines that a reader needs to judge the tables."""
    environment = result.environment
    options, model = result.options, environment["model"]
    return [
        *doubts_of(result),
        *machine_lines(environment),
        f"Model: {options.model}, {model['parameters']:,} parameters in its transformer, "
        f"{model['tokens_per_block']} tokens a block, {model['steps']} steps a block, float32, on "
        f"{options.device} with {options.threads} thread{'s' if options.threads > 1 else ''}.",
        begin_line(environment, result.load_at_start, result.other_share),
        f"{options.repeats} repeat{'s' if options.repeats > 1 else ''} in which cases take turns, in "
        "alternating order, after a warm-up that is not recorded. A ratio is taken within each repeat.",
    ]


def bench_tables(result: WorldBenchResult) -> list[Table]:
    """Return all tables; empty ones are left out. They fit a terminal of 80 columns."""
    asked = [finding for finding in result.findings if finding.limit is not None]
    others = [finding for finding in result.findings if finding.limit is None]
    tables = [
        _finding_table("accept", "What is asked for", asked),
        _finding_table("measured", "What was measured beside", others),
        drift_table(result.drifts),
    ]
    return [table for table in tables if table.rows]


def drift_table(drifts: Iterable[DriftSummary]) -> Table:
    """Return the drift of each way and metric, means over clips with their intervals."""
    by_metric: dict[str, list[DriftSummary]] = {}
    for drift in drifts:
        by_metric.setdefault(drift.metric, []).append(drift)
    rows: list[tuple[Cell, ...]] = []
    counts: set[int] = set()
    for metric, ways in by_metric.items():
        rows.append((metric, *[""] * 8))
        counts |= {drift.normalised.count for drift in ways}
        rows += [_drift_row(drift) for drift in ways]
    columns = (
        Column("metric / way"),
        Column("mean", ".3f"),
        Column("VDE", ".2f"),
        Column("low", ".2f"),
        Column("high", ".2f"),
        Column("log", ".2f"),
        Column("norm", ".3f"),
        Column("low", ".3f"),
        Column("high", ".3f"),
    )
    clips = " or ".join(str(count) for count in sorted(counts)) + " clip" + "s" * (counts != {1})
    note = (
        "mean: the metric itself. VDE: LV-Bench's video drift error over 10 chunks with linear weights; "
        "log: with logarithmic ones; infinite where the first chunk's metric is 0. norm: the normalised "
        "form, 0 to 1, always finite. low and high: 95 % bootstrap intervals of the mean over "
        f"{clips}. What the ground truth scores is the floor: of a residual near 0 a large relative "
        "error says little. Proxies "
        "need no weights, and are not LV-Bench's learned metrics."
    )
    return Table("drift", "Drift", columns, tuple(rows), note)


def _drift_row(drift: DriftSummary) -> tuple[Cell, ...]:
    return (
        f"  {drift.way}",
        drift.mean,
        *_interval(drift.linear),
        float("inf") if drift.log is None else drift.log.value,
        *_interval(drift.normalised),
    )


def _finding_table(name: str, title: str, findings: Iterable[Finding]) -> Table:
    rows = []
    for finding in findings:
        spread = finding.spread
        needed: Cell = None
        if finding.limit is not None:
            needed = f"{'≥' if finding.at_least else '≤'} {finding.limit:g}"
        verdict = {True: "yes", False: "NO", None: None}[finding.is_met]
        values = (None, None, None, 0) if spread is None else _show(spread.median, spread.low, spread.high)
        count = 0 if spread is None else spread.count
        rows.append((finding.name, *values[:3], *((needed, verdict) if name == "accept" else ()), count))
    columns = (
        Column(""),
        Column("median", "s"),
        Column("low", "s"),
        Column("high", "s"),
        *((Column("needed"), Column("met")) if name == "accept" else ()),
        Column("n", "d"),
    )
    note = "low and high: the lowest and highest of n repeats."
    if name == "accept":
        note += (
            " Recompute: the stock model, run eagerly over the whole past. KV bytes are all that a session's "
            "cache allocates: of native also its rotated copies of keys, of int8 the one layer that is "
            "unpacked. In float64 ways that are equal but for rounding differ by less than 1e-12."
        )
    else:
        note += " At equal kernels recomputing, too, runs by those that passes with a cache run by."
    return Table(name, title, columns, tuple(rows), note)


def _show(*values: float) -> tuple[str, ...]:
    """Return numbers with three digits; small ones with two, because of the exponent."""
    return tuple(f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}" for value in values)


def _interval(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    if estimate is None:
        return (float("inf"), None, None)
    return (estimate.value, estimate.low, estimate.high)
