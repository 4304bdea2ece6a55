"""Draws a run: latency over time with its wait, the queue, and the distribution. Data stay as recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from swiftdiff.report.result import RunResult
from swiftdiff.request import RequestRecord

LATENCY, WAIT, FAILED = "#1f5fa8", "#e08a1e", "#b3261e"
MANY = 5000  # from here on points are drawn smaller and as pixels


@dataclass
class _Series:
    scheduled: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    failed_after: list[float] = field(default_factory=list)
    served_at: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)


def draw_latency(records: Iterable[RequestRecord], result: RunResult, path: Path) -> None:
    """Write the plot of a run's latencies as PNG.

    Args:
        records: The run's; warm-ups are left out.
        result: For the titles and the percentile lines.
        path: The file; its folder exists.
    """
    # Agg through the figure itself: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = _collect(records)
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, queue, distribution = figure.subplots(3, 1, height_ratios=(3, 1.3, 2))
    queue.sharex(over_time)
    info = result.info
    figure.suptitle(f"{info.system} on {Path(info.trace).name} ({info.options.load.describe()})")
    _draw_over_time(over_time, series)
    _draw_queue(queue, series)
    _draw_distribution(distribution, series, result)
    figure.savefig(path, dpi=110)


def _collect(records: Iterable[RequestRecord]) -> _Series:
    series = _Series()
    for record in records:
        if record.warmup:
            continue
        series.scheduled.append(record.scheduled_at_s)
        series.started.append(record.started_at_s)
        if record.status == "ok":
            series.served_at.append(record.scheduled_at_s)
            series.latency.append(record.latency_s)
            series.wait.append(record.queue_wait_s)
        else:
            series.failed_at.append(record.scheduled_at_s)
            series.failed_after.append(record.latency_s)
    return series


def _draw_over_time(axes: Any, series: _Series) -> None:
    size, raster = (3, True) if len(series.latency) > MANY else (18, False)
    axes.vlines(series.served_at, series.wait, series.latency, color=LATENCY, alpha=0.25, rasterized=raster)
    axes.vlines(series.served_at, 0, series.wait, color=WAIT, alpha=0.35, rasterized=raster)
    axes.scatter(series.served_at, series.latency, s=size, color=LATENCY, label="latency", rasterized=raster)
    axes.scatter(
        series.served_at, series.wait, s=size / 2, color=WAIT, label="of it waiting", rasterized=raster
    )
    if series.failed_at:
        axes.scatter(series.failed_at, series.failed_after, marker="x", color=FAILED, label="failed")
    axes.set(ylabel="seconds", ylim=(0, None))
    axes.set_title("Latency by arrival", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)  # beside the title
    axes.grid(alpha=0.25)


def _draw_queue(axes: Any, series: _Series) -> None:
    """Draw how many requests had arrived and not started, exactly, from the records."""
    moments = np.concatenate([series.scheduled, series.started])
    changes = np.concatenate([np.ones(len(series.scheduled)), -np.ones(len(series.started))])
    # At the same moment a request arrives before it starts.
    order = np.lexsort((-changes, moments))
    axes.step(moments[order], np.cumsum(changes[order]), where="post", color=WAIT)
    axes.set(ylabel="waiting", xlabel="seconds from the run's start", ylim=(0, None))
    axes.grid(alpha=0.25)


def _draw_distribution(axes: Any, series: _Series, result: RunResult) -> None:
    axes.set(title="Distribution of latency", xlabel="seconds", ylabel="requests")
    if not series.latency or result.summary.latency is None:
        axes.text(0.5, 0.5, "no request was served", ha="center", transform=axes.transAxes)
        return
    axes.hist(series.latency, bins=min(60, max(8, len(series.latency) // 4)), color=LATENCY, alpha=0.6)
    percentiles = {"p50": result.summary.latency.median} | result.summary.latency.percentiles
    for name in ("p50", "p90", "p99"):
        axes.axvline(percentiles[name] / 1000, color="black", linestyle=":", linewidth=1)
        place = (percentiles[name] / 1000, 1)
        axes.annotate(f" {name}", place, xycoords=("data", "axes fraction"), va="top", fontsize=8)
    cumulative = axes.twinx()
    ordered = np.sort(series.latency)
    cumulative.step(
        ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", color="black", alpha=0.5
    )
    cumulative.set(ylim=(0, 1), ylabel="share of requests served within")
