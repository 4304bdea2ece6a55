"""Owns which tables a run has and what is in them, as data that any renderer can show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swiftdiff.report.adapters import AdapterUse, Kind
from swiftdiff.report.result import RunResult
from swiftdiff.report.summary import DEFAULT_PERCENTILES, Statistics

Cell = str | float | int | None
ADAPTER_KINDS: dict[Kind, str] = {"lora": "LoRA", "controlnet": "ControlNet"}
AUTO = "auto"  # about three significant digits, never an exponent


@dataclass(frozen=True)
class Column:
    """A column: its heading and how its numbers are written: a format specification or `AUTO`."""

    name: str
    format: str = ""


@dataclass(frozen=True)
class Table:
    """A table of raw values. `shown` gives them as text.

    Attributes:
        name: File name without suffix.
        title: Heading.
        columns: In order; the first one labels the rows.
        rows: A cell a column; None is a value that does not exist.
        note: What a reader must know, or empty.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def shown(self) -> list[list[str]]:
        """Return the cells as text."""
        return [
            [_show(cell, column.format) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]


def run_tables(result: RunResult, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> list[Table]:
    """Return all tables of a run; one that would be empty is left out."""
    tables = [
        latency_table(result, percentiles),
        throughput_table(result),
        adapter_table(result),
        failure_table(result),
    ]
    return [table for table in tables if table.rows]


def latency_table(result: RunResult, percentiles: Sequence[float] = DEFAULT_PERCENTILES) -> Table:
    """Return milliseconds from arrival to delivery, whole and by stage."""
    names = [f"p{p:g}" for p in sorted(percentiles)]
    summary = result.summary
    rows: list[tuple[Cell, ...]] = []
    if summary.latency is not None:
        whole = summary.latency
        rows.append(_statistics_row("latency", whole, names, whole.mean))
        for name, statistics in summary.stages.items():
            delivered = name != "restore"
            label = f"  {name}" if delivered else "restore *"
            rows.append(_statistics_row(label, statistics, names, whole.mean if delivered else None))
    columns = (
        Column("ms"),
        Column("mean", AUTO),
        *(Column(name, AUTO) for name in names),
        Column("share", ".0%"),
    )
    note = (
        "Means add up to the latency's; percentiles do not. "
        f"* After delivery: part of device time, not of latency. {result.store_note}"
    )
    return Table("latency", "Latency", columns, tuple(rows), note.strip())


def throughput_table(result: RunResult) -> Table:
    """Return rates, costs and memory."""
    summary = result.summary
    slo, cache = summary.slo_attainment_rate, summary.latent_cache
    measures: tuple[tuple[str, Cell, str], ...] = (
        ("requests", summary.completed, "served"),
        ("failed", summary.failed, "requests"),
        ("not served", result.remaining, "requests"),
        ("duration", summary.duration, "s"),
        ("throughput", summary.request_throughput, "requests/s"),
        ("pictures", summary.images_per_s, "images/s"),
        ("goodput", summary.request_goodput, "requests/s within their SLO"),
        ("SLO attainment", None if slo is None else slo * 100, "% of requests with an SLO"),
        ("device time", summary.device_seconds_per_image, "device-s/image"),
        ("adapters loaded", summary.bytes_loaded / 1e6, "MB"),
        ("latents from cache", None if cache is None else cache.hit_rate * 100, "% of requests"),
        ("steps skipped for them", None if cache is None else cache.skipped_share * 100, "% of steps"),
        ("similarity of their prompts", None if cache is None else cache.mean_similarity, "cosine, mean"),
        ("graphs captured", summary.graphs_captured, "while requests were served"),
        ("peak host memory", _mebibytes(result.peak_host_bytes), "MiB"),
        ("peak device memory", _mebibytes(result.peak_device_bytes), "MiB"),
    )
    rows = tuple(row for row in measures if row[1] is not None)
    columns = (Column("measure"), Column("value", AUTO), Column("unit"))
    return Table("throughput", "Throughput and cost", columns, rows, result.store_note)


def adapter_table(result: RunResult) -> Table:
    """Return how LoRAs and ControlNets came to their requests; no rows for a system that does not tell."""
    kinds = [result.summary.adapters.get(kind) for kind in ADAPTER_KINDS]
    measures: tuple[tuple[str, Callable[[AdapterUse], Cell], str], ...] = (
        ("uses", lambda use: use.uses, ""),
        ("from memory", lambda use: use.hit_rate * 100, "% of uses"),
        ("another request's load", lambda use: use.shared, "uses"),
        ("loaded", lambda use: use.bytes_loaded / 1e6, "MB"),
        ("load, mean *", lambda use: use.mean_load_ms, "ms"),
        ("wait of a request, mean", lambda use: use.mean_wait_ms, "ms"),
        ("patched at step, first", lambda use: use.steps_patched and use.steps_patched[0], ""),
        ("patched at step, median", lambda use: use.steps_patched and use.steps_patched[1], ""),
        ("patched at step, last", lambda use: use.steps_patched and use.steps_patched[2], ""),
        ("k of bal_table, lowest", lambda use: use.bal_k and use.bal_k[0], ""),
        ("k of bal_table, median", lambda use: use.bal_k and use.bal_k[1], ""),
        ("k of bal_table, highest", lambda use: use.bal_k and use.bal_k[2], ""),
        ("k = 0: not in bal_table", lambda use: use.not_in_bal_table, "uses"),
    )
    rows = (
        (name, *(None if use is None else measure(use) for use in kinds), unit)
        for name, measure, unit in measures
    )
    shown = tuple(row for row in rows if any(cell is not None for cell in row[1:-1]))
    columns = (Column("adapters"), *(Column(name, AUTO) for name in ADAPTER_KINDS.values()), Column("unit"))
    note = f"* From arrival until it was ready, of those that were not in memory. {result.store_note}"
    return Table("adapters", "Adapters", columns, shown, note.strip())


def failure_table(result: RunResult) -> Table:
    """Return the requests that failed, and why."""
    rows = tuple((failure.request_id, failure.kind, failure.error) for failure in result.summary.failures)
    more = result.summary.failed - len(rows)
    note = f"{more} more in requests.jsonl." if more > 0 else ""
    return Table("failures", "Failures", (Column("request"), Column("kind"), Column("reason")), rows, note)


def to_markdown(table: Table) -> str:
    """Return a table as GitHub-flavoured Markdown, with heading and note."""
    heads = [column.name for column in table.columns]
    rules = [
        "---" if index == 0 or not column.format else "---:" for index, column in enumerate(table.columns)
    ]
    lines = [f"## {table.title}", "", _markdown_row(heads), _markdown_row(rules)]
    lines += [_markdown_row(row) for row in table.shown()]
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Return a table's raw values as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(column.name for column in table.columns)
    writer.writerows([cell.strip() if isinstance(cell, str) else cell for cell in row] for row in table.rows)
    return out.getvalue()


def _statistics_row(
    label: str, statistics: Statistics, names: list[str], whole_mean: float | None
) -> tuple[Cell, ...]:
    share = statistics.mean / whole_mean if whole_mean else None
    return (label, statistics.mean, *(statistics.percentiles[name] for name in names), share)


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.strip().replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _mebibytes(num_bytes: int | None) -> float | None:
    return num_bytes / 2**20 if num_bytes else None


def _show(cell: Cell, specification: str) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str) or not specification:
        return str(cell)
    if math.isinf(cell):
        return "∞"
    if specification != AUTO:
        return format(cell, specification)
    if isinstance(cell, int) or cell == 0:
        return f"{cell:,.0f}"
    digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3
    return f"{cell:,.{digits}f}"
