"""Owns the tables that show runs side by side: a column a system, the baseline first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from swiftdiff.report.adapters import Kind
from swiftdiff.report.comparison import ComparedRun, Comparison, Speedup, pair
from swiftdiff.report.picture_difference import PictureComparison
from swiftdiff.report.summary import Statistics, stage_order
from swiftdiff.report.tables import AUTO, Cell, Column, Table

_Row = tuple[Cell, ...]
_Measures = tuple[tuple[str, Callable[[ComparedRun], Cell]], ...]


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison; one that would be empty is left out."""
    tables = [
        _main_table(comparison),
        _speedup_table(comparison),
        _setting_table(comparison),
        _stage_table(comparison),
        _cost_table(comparison),
        _failure_table(comparison),
        _picture_table(comparison),
    ]
    return [table for table in tables if table.rows]


def headline_table(comparison: Comparison) -> Table:
    """Return the answer in short: a row a system."""
    columns = (
        Column("system"),
        Column("declared"),
        Column("latency, ms", AUTO),
        Column("×", AUTO),
        Column("95 % interval", AUTO),
        Column("device-s", AUTO),
        Column("failed", AUTO),
    )
    rows = tuple(
        (
            run.label,
            run.result.info.exactness,
            _mean(run.result.summary.latency),
            run.latency_speedup.mean,
            _interval(run.latency_speedup) if run is not comparison.baseline else None,
            run.result.summary.device_seconds_per_image,
            run.result.summary.failed or None,
        )
        for run in comparison.runs
    )
    title = f"How much faster than {comparison.baseline.label}"
    note = "Mean latency, how many times as fast as the baseline, and device time a picture."
    return Table("headline", title, columns, rows, note)


def raw_tables(comparison: Comparison) -> list[Table]:
    """Return the rows behind the numbers: a row a request and system, and a row a picture and system."""
    return [_request_rows(comparison), _picture_rows(comparison)]


def split_columns(table: Table, at_most: int) -> Iterator[Table]:
    """Yield tables of at most so many systems each, so that they fit a page; the baseline is in all.

    Args:
        table: One of `comparison_tables`.
        at_most: At least 2.
    """
    others = list(range(2, len(table.columns)))
    step = at_most - 1
    for start in range(0, max(len(others), 1), step):
        kept = [0, 1, *others[start : start + step]]
        last = start + step >= len(others)
        yield replace(
            table,
            columns=tuple(table.columns[index] for index in kept),
            rows=tuple(tuple(row[index] for index in kept) for row in table.rows),
            note=table.note if last else "",
        )


def _main_table(comparison: Comparison) -> Table:
    measures: _Measures = (
        ("repeats", lambda run: len(run.system.runs) if comparison.num_repeats > 1 else None),
        ("declared", lambda run: run.result.info.exactness),
        ("requests served", lambda run: run.result.summary.completed),
        ("requests failed", lambda run: run.result.summary.failed),
        ("requests not served", lambda run: run.result.remaining or None),
        ("latency, mean ms", lambda run: _mean(run.result.summary.latency)),
        *((f"latency, {name} ms", _latency(name)) for name in ("p50", "p90", "p95", "p99")),
        ("queue wait, mean ms", lambda run: _mean(run.result.summary.stages.get("queue"))),
        ("service, mean ms", lambda run: _mean(run.service)),
        ("service, p50 ms", lambda run: None if run.service is None else run.service.median),
        ("LoRA load or wait, ms *", lambda run: run.lora_wait_ms),
    )
    notes = ["* Mean over requests with LoRAs of the time they stood still for them."]
    notes += sorted({run.result.store_note for run in comparison.runs} - {""})
    return _table(comparison, "comparison", "Side by side", _measure(comparison, measures), " ".join(notes))


def _cost_table(comparison: Comparison) -> Table:
    devices = dict.fromkeys(name for run in comparison.runs for name in run.result.peak_bytes_by_device)
    measures: _Measures = (
        ("device-s/image", lambda run: run.result.summary.device_seconds_per_image),
        ("restore, mean ms", lambda run: _mean(run.result.summary.stages.get("restore"))),
        ("LoRAs from memory, %", _hit_rate("lora")),
        ("ControlNets from memory, %", _hit_rate("controlnet")),
        ("latents from cache, %", lambda run: _latents(run, "hit_rate")),
        ("steps skipped for them, %", lambda run: _latents(run, "skipped_share")),
        ("requests/s", lambda run: run.result.summary.request_throughput),
        ("images/s", lambda run: run.result.summary.images_per_s),
        ("goodput at SLO, requests/s", lambda run: run.result.summary.request_goodput),
        ("SLO kept, %", _slo_percent),
        ("peak host memory, MiB", lambda run: _mebibytes(run.result.peak_host_bytes)),
        *((f"peak on {name}, MiB", _device_peak(name)) for name in devices),
    )
    notes = ["Device time counts the restore, and every device that a request occupied."]
    if any(run.result.info.options.load.kind != "closed" for run in comparison.runs):
        notes.append("Arrivals bound requests/s while a system keeps up with them.")
    return _table(comparison, "cost", "What it costs", _measure(comparison, measures), " ".join(notes))


def _failure_table(comparison: Comparison) -> Table:
    """Return each reason for which requests failed, once a system."""
    counts: dict[tuple[str, str, str], int] = {}
    for run in comparison.runs:
        for failure in run.result.summary.failures:
            key = (run.label, failure.kind, failure.error)
            counts[key] = counts.get(key, 0) + 1
    rows = tuple((system, count, kind, error) for (system, kind, error), count in counts.items())
    columns = (Column("system"), Column("requests", AUTO), Column("kind"), Column("reason"))
    return Table("failures", "Failed requests", columns, rows)


def _speedup_table(comparison: Comparison) -> Table:
    runs = comparison.runs
    rows: list[_Row] = [("requests paired", *(run.num_paired for run in runs))]
    for name, speedups in (
        ("latency", [run.latency_speedup for run in runs]),
        ("service", [run.service_speedup for run in runs]),
        ("service + restore", [run.occupied_speedup for run in runs]),
    ):
        rows += [
            (f"{name}, mean ×", *(each.mean for each in speedups)),
            ("  95 % interval", None, *(_interval(each) for each in speedups[1:])),
            (f"{name}, p50 ×", *(each.median for each in speedups)),
            (f"{name}, paired ×", *(each.paired for each in speedups)),
        ]
    repeats = (
        "requests and repeats are drawn"
        if comparison.num_repeats > 1
        else "requests are drawn; of one run a system the machine's moods are not in it"
    )
    note = (
        "Above 1 is faster. Over the requests that both served; paired is the median of the requests' own "
        f"ratios. Interval of the mean: bootstrap, {repeats}."
    )
    return _table(comparison, "speedup", f"Speed-up over {comparison.baseline.label}", rows, note)


def _setting_table(comparison: Comparison) -> Table:
    """Return service by how many ControlNets and LoRAs a request has; empty if all have as many."""
    rows: list[_Row] = []
    settings = sorted(set().union(*(run.served["setting"] for run in comparison.runs)))
    for setting in settings if len(settings) > 1 else ():
        rows.append((f"{setting}, mean ms", *(_mean_service(run, setting) for run in comparison.runs)))
        ratios = [_setting_speedup(comparison.baseline, run, setting) for run in comparison.runs[1:]]
        rows.append(("  × baseline", None, *ratios))
    note = "Service without queue. ControlNets/LoRAs of a request; ratios of means over the same requests."
    return _table(comparison, "settings", "By adapter setting", rows, note)


def _stage_table(comparison: Comparison) -> Table:
    summaries = [run.result.summary for run in comparison.runs]
    rows: list[_Row] = [("latency", *(_mean(summary.latency) for summary in summaries))]
    for name in sorted({name for summary in summaries for name in summary.stages}, key=stage_order):
        label = "restore *" if name == "restore" else f"  {name}"
        rows.append((label, *(_mean(summary.stages.get(name)) for summary in summaries)))
    note = (
        "Means over all served requests; they add up. * After delivery: part of device time, not of latency."
    )
    return _table(comparison, "stages", "Mean milliseconds by stage", rows, note)


def _picture_table(comparison: Comparison) -> Table:
    def of(measure: Callable[[PictureComparison], Cell]) -> Callable[[ComparedRun], Cell]:
        return lambda run: None if run.pictures is None else measure(run.pictures)

    measures: _Measures = (
        ("pictures compared", of(lambda pictures: len(pictures.pairs))),
        ("not comparable", of(lambda pictures: len(pictures.problems) or None)),
        ("identical", of(lambda pictures: pictures.identical)),
        ("largest difference", of(lambda pictures: pictures.max_abs)),
        ("mean difference", of(lambda pictures: pictures.mean_abs)),
        ("PSNR, dB", of(lambda pictures: pictures.psnr_db)),
        ("lowest PSNR, dB", of(lambda pictures: None if pictures.worst is None else pictures.worst.psnr_db)),
    )
    title = f"Pictures against those of {comparison.baseline.label}"
    note = "Differences in levels from 0 to 255 of red, green and blue; PSNR of the mean square."
    return _table(comparison, "pictures", title, _measure(comparison, measures), note)


def _request_rows(comparison: Comparison) -> Table:
    before = comparison.baseline.served
    rows: list[tuple[Cell, ...]] = []
    for run in comparison.runs:
        for request in run.served.itertuples():
            service_s = float(request.service_s)
            is_paired = request.Index in before.index and service_s > 0
            ratio = float(before.at[request.Index, "service_s"]) / service_s if is_paired else None
            times_ms = (request.latency_s * 1000, service_s * 1000, request.restore_s * 1000)
            request_id, repeat = request.Index
            rows.append((str(request_id), run.label, int(repeat), *map(float, times_ms), ratio))
    names = ("repeat", "latency_ms", "service_ms", "restore_ms", "service_speedup")
    columns = (Column("request_id"), Column("system"), *(Column(name, AUTO) for name in names))
    return Table("requests", "Requests", columns, tuple(rows))


def _picture_rows(comparison: Comparison) -> Table:
    rows = tuple(
        (pair.request_id, pair.index, run.label, pair.max_abs, pair.mean_abs, pair.psnr_db)
        for run in comparison.runs
        if run.pictures is not None
        for pair in run.pictures.pairs
    )
    names = ("max_abs", "mean_abs", "psnr_db")
    columns = (
        Column("request_id"),
        Column("index", AUTO),
        Column("system"),
        *(Column(name, AUTO) for name in names),
    )
    return Table("picture_pairs", "Pictures", columns, rows)


def _measure(comparison: Comparison, measures: _Measures) -> list[_Row]:
    return [(label, *(measure(run) for run in comparison.runs)) for label, measure in measures]


def _table(comparison: Comparison, name: str, title: str, rows: Sequence[_Row], note: str) -> Table:
    """Return a table of the rows in which any run has a value."""
    shown = tuple(row for row in rows if any(cell is not None for cell in row[1:]))
    columns = (Column("measure"), *(Column(run.label, AUTO) for run in comparison.runs))
    return Table(name, title, columns, shown, note)


def _mean(statistics: Statistics | None) -> float | None:
    return None if statistics is None else statistics.mean


def _latency(percentile: str) -> Callable[[ComparedRun], Cell]:
    def get(run: ComparedRun) -> Cell:
        latency = run.result.summary.latency
        return None if latency is None else latency.percentiles[percentile]

    return get


def _mean_service(run: ComparedRun, setting: str) -> float | None:
    seconds = run.served["service_s"][run.served["setting"] == setting]
    return float(seconds.mean()) * 1000 if len(seconds) else None


def _setting_speedup(baseline: ComparedRun, run: ComparedRun, setting: str) -> float | None:
    paired = pair(baseline.system, run.system)
    paired = paired[paired["setting_before"] == setting]
    after = float(paired["service_s_after"].mean()) if len(paired) else 0.0
    return float(paired["service_s_before"].mean()) / after if after > 0 else None


def _interval(speedup: Speedup) -> str | None:
    if speedup.low is None or speedup.high is None:
        return None
    return f"{speedup.low:.2f}–{speedup.high:.2f}"


def _hit_rate(kind: Kind) -> Callable[[ComparedRun], Cell]:
    def get(run: ComparedRun) -> Cell:
        use = run.result.summary.adapters.get(kind)
        return None if use is None else use.hit_rate * 100

    return get


def _latents(run: ComparedRun, share: str) -> Cell:
    use = run.result.summary.latent_cache
    return None if use is None else getattr(use, share) * 100


def _device_peak(device: str) -> Callable[[ComparedRun], Cell]:
    return lambda run: _mebibytes(run.result.peak_bytes_by_device.get(device))


def _slo_percent(run: ComparedRun) -> Cell:
    rate = run.result.summary.slo_attainment_rate
    return None if rate is None else rate * 100


def _mebibytes(num_bytes: int | None) -> float | None:
    return num_bytes / 2**20 if num_bytes else None
