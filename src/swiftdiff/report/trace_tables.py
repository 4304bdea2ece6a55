"""Owns which tables a trace's statistics have and what is in them, as data that any renderer can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from swiftdiff.report.tables import AUTO, Cell, Column, Table
from swiftdiff.trace.statistics import AdapterStatistics, TraceStatistics
from swiftdiff.trace.statistics.bins import Bins

STRETCHES = 12  # rows of what is shown over time
_TIME_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 0.001))
_Row = tuple[Cell, ...]
_Of = Callable[[AdapterStatistics], float | None]


def trace_tables(statistics: TraceStatistics) -> list[Table]:
    """Return the tables for readers; one that would be empty is left out."""
    tables = [_arrivals(statistics), _over_time(statistics), _adapter_counts(statistics)]
    if statistics.kinds:
        tables += [_use(statistics), _churn(statistics)]
    return tables + [_hit_rates(name, kind) for name, kind in statistics.kinds.items()]


def raw_trace_tables(statistics: TraceStatistics) -> list[Table]:
    """Return what the plots show, each number: over time, popularity, and hits at every cache size."""
    tables = [_raw_over_time(statistics)]
    for name, kind in statistics.kinds.items():
        stem = name.lower()
        ranks = tuple(enumerate(kind.popularity.uses, start=1))
        tables.append(Table(f"{stem}_popularity", name, (Column("rank"), Column("uses")), ranks))
        hits = tuple((size, hits, kind.lfu.hits_at(size)) for size, hits in _pairs(kind))
        columns = (Column("cache_size"), Column("lru_hits"), Column("lfu_hits"))
        tables.append(Table(f"{stem}_cache", name, columns, hits))
    return tables


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit that suits a time, and its seconds."""
    return next(((name, size) for name, size in _TIME_UNITS if seconds >= 2 * size), _TIME_UNITS[-1])


def _pairs(kind: AdapterStatistics) -> Sequence[tuple[int, int]]:
    return list(zip(kind.lru.sizes, kind.lru.hits, strict=True))


def _arrivals(statistics: TraceStatistics) -> Table:
    arrivals = statistics.arrivals
    gaps = arrivals.gap_percentiles_s or {}
    rows: list[_Row] = [
        ("requests", arrivals.num_requests, ""),
        _time_row("first arrival", [arrivals.first_s]),
        _time_row("from first to last", [arrivals.span_s]),
        ("mean rate", arrivals.rate_per_s, "requests/s"),
        ("highest rate *", max(arrivals.counts) / arrivals.bins.width_s, "requests/s"),
        *(_time_row(f"gap, {name}", [gap]) for name, gap in gaps.items()),
        ("gaps' coefficient of variation", arrivals.gap_cv, "1 is Poisson"),
    ]
    for dispersion in arrivals.dispersion:
        window, unit = _in_unit(dispersion.window_s)
        rows.append((f"dispersion in {window:g} {unit}", dispersion.index, "1 is Poisson"))
    window, unit = _in_unit(arrivals.bins.width_s)
    note = (
        f"* In {window:g} {unit}. Dispersion is the variance of the counts in equal windows over their mean, "
        "for windows of which ten fit."
    )
    columns = (Column("arrivals"), Column("value", AUTO), Column("unit"))
    return Table("arrivals", "Arrivals", columns, tuple(row for row in rows if row[1] is not None), note)


def _over_time(statistics: TraceStatistics) -> Table:
    bins = statistics.arrivals.bins
    step = -(-bins.count // STRETCHES)
    unit, unit_s = time_unit(bins.start_s + bins.count * bins.width_s)
    requests = _stretches(statistics.arrivals.counts, step)
    columns = [Column(f"from, {unit}", AUTO), Column("requests", AUTO)]
    series: list[list[Cell]] = [_starts(bins, step, unit_s), list(requests)]
    for name, kind in statistics.kinds.items():
        uses, new = _stretches(kind.churn.uses, step), _stretches(kind.churn.new_ids, step)
        columns += [Column(f"{name} used", AUTO), Column("of it new, %", AUTO)]
        series += [list(uses), [100 * b / a if a else None for a, b in zip(uses, new, strict=True)]]
    note = "New: an adapter's first use in the trace."
    rows = tuple(zip(*series, strict=True))
    return Table("over_time", "Over time", tuple(columns), rows, note if statistics.kinds else "")


def _starts(bins: Bins, step: int, unit_s: float) -> list[Cell]:
    return [(bins.start_s + place * bins.width_s) / unit_s for place in range(0, bins.count, step)]


def _stretches(counts: Sequence[int], step: int) -> list[int]:
    return [sum(counts[place : place + step]) for place in range(0, len(counts), step)]


def _adapter_counts(statistics: TraceStatistics) -> Table:
    counts, total = statistics.adapter_counts, statistics.arrivals.num_requests
    shown = min(max(len(counts.loras), len(counts.controlnets)), 6)
    rows: list[_Row] = []
    for number in range(shown):
        both = [_at(kind, number, is_last=number == shown - 1) for kind in (counts.loras, counts.controlnets)]
        is_open = number == shown - 1 and max(len(counts.loras), len(counts.controlnets)) > shown
        label = f"{number} or more" if is_open else str(number)
        rows.append((label, both[0], 100 * both[0] / total, both[1], 100 * both[1] / total))
    columns = (
        Column("adapters"),
        *(Column(name, AUTO) for name in ("with so many LoRAs", "%", "with so many ControlNets", "%")),
    )
    note = f"Requests with both kinds: {counts.both:,}. An id that a request names twice counts once."
    return Table("adapters_per_request", "Adapters per request", columns, tuple(rows), note)


def _at(counts: Sequence[int], number: int, *, is_last: bool) -> int:
    return sum(counts[number:]) if is_last else counts[number] if number < len(counts) else 0


def _use(statistics: TraceStatistics) -> Table:
    table = _KindRows(statistics)
    table.add("different ids", lambda kind: kind.num_ids)
    table.add("uses", lambda kind: kind.num_uses)
    for top in (1, 10, 100):
        table.add(f"on the most used {top}", _share_of_top(top), "% of uses")
    for share in (0.5, 0.9, 0.99):
        table.add(f"ids for {share:.0%} of uses", _ids_for_share(share))
    for name in ("p10", "p50", "p90", "p99"):
        table.add(f"reuse distance, {name}", _percentile("reuse_distance", name), "ids *")
    for name in ("p10", "p50", "p90", "p99"):
        table.add_time(f"reuse time, {name}", _percentile("reuse_time_s", name))
    note = "* How many other adapters are used between two uses of one: a larger LRU cache hits."
    return table.finish("use", "Popularity and reuse", note)


def _churn(statistics: TraceStatistics) -> Table:
    table = _KindRows(statistics)
    table.add("first uses", lambda kind: _percent(kind.churn.new_share), "% of uses")
    table.add("in the second half", lambda kind: _percent(kind.churn.new_share_second_half), "% of uses")
    table.add("used once", lambda kind: _percent(kind.churn.single_use_share), "% of ids")
    table.add_time("half-life *", lambda kind: kind.churn.half_life_s)
    table.add_time("of ids used again *", lambda kind: kind.churn.half_life_reused_s)
    table.add_time("age at use, median", lambda kind: kind.churn.median_age_s)
    note = (
        "* Half of the ids that come in the trace's first half have their last use that long after their "
        "first. Age counts from an id's first use."
    )
    return table.finish("churn", "Churn", note)


class _KindRows:
    """Collects rows with a value for each kind of adapter; one without any value is left out."""

    def __init__(self, statistics: TraceStatistics) -> None:
        self._kinds = statistics.kinds
        self._rows: list[_Row] = []

    def add(self, label: str, of: _Of, unit: str = "") -> None:
        self._rows.append((label, *(of(kind) for kind in self._kinds.values()), unit))

    def add_time(self, label: str, of: _Of) -> None:
        self._rows.append(_time_row(label, [of(kind) for kind in self._kinds.values()]))

    def finish(self, name: str, title: str, note: str) -> Table:
        shown = tuple(row for row in self._rows if any(cell is not None for cell in row[1:-1]))
        columns = (Column("measure"), *(Column(kind, AUTO) for kind in self._kinds), Column("unit"))
        return Table(name, title, columns, shown, note)


def _share_of_top(count: int) -> _Of:
    return lambda kind: 100 * kind.popularity.share_of_top(count)


def _ids_for_share(share: float) -> _Of:
    return lambda kind: kind.popularity.ids_for_share(share)


def _percentile(field: Literal["reuse_distance", "reuse_time_s"], name: str) -> _Of:
    def get(kind: AdapterStatistics) -> float | None:
        found = kind.reuse_distance if field == "reuse_distance" else kind.reuse_time_s
        return None if found is None else found[name]

    return get


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _hit_rates(name: str, kind: AdapterStatistics) -> Table:
    rows: list[_Row] = []
    for size in kind.lfu.sizes:
        lru, lfu = (kind.rates(curve.hits_at(size) or 0) for curve in (kind.lru, kind.lfu))
        rates = (lru[0], lfu[0], lru[1], lfu[1])
        rows.append((f"{size:,}", *(None if rate is None else 100 * rate for rate in rates)))
    columns = (
        Column("cache size"),
        *(Column(head, ".1f") for head in ("LRU, %", "LFU, %", "LRU, % of reuses", "LFU, % of reuses")),
    )
    note = (
        "In adapters of equal size, empty at first; a request's adapters are held until it has all. LFU "
        "counts uses since an adapter came in. Reuses leave out each adapter's first use, which no cache "
        "hits. LRU at every size: JSON and CSV."
    )
    return Table(
        f"{name.lower()}_hit_rate", f"{name}: hit rate against cache size", columns, tuple(rows), note
    )


def _time_row(label: str, seconds: Sequence[float | None]) -> _Row:
    known = [each for each in seconds if each is not None]
    unit, size = time_unit(max(known, default=0))
    return (label, *(None if each is None else each / size for each in seconds), unit)


def _in_unit(seconds: float) -> tuple[float, str]:
    unit, size = next(((name, size) for name, size in _TIME_UNITS if seconds >= size), _TIME_UNITS[-1])
    return seconds / size, unit


def _raw_over_time(statistics: TraceStatistics) -> Table:
    bins = statistics.arrivals.bins
    columns = [Column("from_s"), Column("requests")]
    series: list[Sequence[Cell]] = [_starts(bins, 1, 1.0), statistics.arrivals.counts]
    for name, kind in statistics.kinds.items():
        columns += [Column(f"{name.lower()}_uses"), Column(f"{name.lower()}_new_ids")]
        series += [kind.churn.uses, kind.churn.new_ids]
    return Table("bins", "Over time", tuple(columns), tuple(zip(*series, strict=True)))
