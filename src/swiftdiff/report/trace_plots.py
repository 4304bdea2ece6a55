"""Draws a trace's statistics on one page: arrivals, adapters, reuse, churn and hit rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swiftdiff.report.trace_tables import time_unit
from swiftdiff.trace.statistics import AdapterStatistics, TraceStatistics
from swiftdiff.trace.statistics.bins import Bins

COLOURS = {"LoRAs": "#1f5fa8", "ControlNets": "#e08a1e"}
REQUESTS = "#444444"
_UNITS = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds"}


def draw_trace(statistics: TraceStatistics, title: str, path: Path) -> None:
    """Write the page as PNG.

    Args:
        statistics: What is drawn.
        title: Stands above all.
        path: The file; its folder exists.
    """
    # Agg through the figure itself: pyplot would keep global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 14), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(4, 2).ravel()
    draw = (
        _draw_arrivals,
        _draw_dispersion,
        _draw_adapter_counts,
        _draw_popularity,
        _draw_new_ids,
        _draw_new_share,
        _draw_reuse,
        _draw_hit_rates,
    )
    for place, draw_one in zip(axes, draw, strict=True):
        draw_one(place, statistics)
        place.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def _draw_arrivals(axes: Any, statistics: TraceStatistics) -> None:
    arrivals = statistics.arrivals
    edges, unit = _edges(arrivals.bins)
    rates = np.array(arrivals.counts) / arrivals.bins.width_s
    axes.stairs(rates, edges, fill=True, color=REQUESTS, alpha=0.6)
    axes.set(xlabel=f"{unit} from the trace's start", ylabel="requests a second", ylim=(0, None))
    axes.set_title("Arrivals over time", loc="left")


def _draw_dispersion(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Burstiness: variance over mean of counts in windows", loc="left")
    found = statistics.arrivals.dispersion
    if not found:
        _say(axes, "the trace is too short for windows")
        return
    axes.loglog([each.window_s for each in found], [each.index for each in found], "o-", color=REQUESTS)
    axes.axhline(1, color="black", linestyle=":", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axes.annotate("Poisson ", (1, 1), fontsize=8, **place)
    axes.set(xlabel="window, seconds", ylabel="index of dispersion")
    _plain_numbers(axes.xaxis, axes.yaxis)


def _draw_adapter_counts(axes: Any, statistics: TraceStatistics) -> None:
    counts, total = statistics.adapter_counts, statistics.arrivals.num_requests
    for name, offset, numbers in (("LoRAs", -0.2, counts.loras), ("ControlNets", 0.2, counts.controlnets)):
        places = np.arange(len(numbers)) + offset
        bars = axes.bar(places, 100 * np.array(numbers) / total, width=0.4, color=COLOURS[name], label=name)
        if len(numbers) <= 6:
            axes.bar_label(bars, fmt="{:.3g}", fontsize=8)
    axes.set(xlabel="adapters of a request", ylabel="% of requests")
    axes.locator_params(axis="x", integer=True)
    axes.set_title("Adapters per request", loc="left")
    axes.legend(frameon=False)


def _draw_popularity(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Popularity", loc="left")
    for name, kind in _kinds(axes, statistics):
        uses = kind.popularity.uses
        axes.loglog(np.arange(1, len(uses) + 1), uses, ".-", color=COLOURS[name], label=name)
        axes.set(xlabel="rank", ylabel="uses")
        _plain_numbers(axes.xaxis, axes.yaxis)
        axes.legend(frameon=False)


def _draw_new_ids(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Churn: different ids so far", loc="left")
    edges, unit = _edges(statistics.arrivals.bins)
    for name, kind in _kinds(axes, statistics):
        so_far = np.concatenate([[0], np.cumsum(kind.churn.new_ids)])
        axes.plot(edges, so_far, color=COLOURS[name], label=name)
        axes.set(xlabel=f"{unit} from the trace's start", ylabel="ids", ylim=(0, None))
        axes.legend(frameon=False)


def _draw_new_share(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Churn: uses whose id was not seen before", loc="left")
    edges, unit = _edges(statistics.arrivals.bins)
    for name, kind in _kinds(axes, statistics):
        uses = np.array(kind.churn.uses, dtype=float)
        uses[uses == 0] = np.nan  # a stretch without uses has no share
        shares = 100 * np.array(kind.churn.new_ids) / uses
        axes.stairs(shares, edges, baseline=None, color=COLOURS[name], label=name)
        axes.set(xlabel=f"{unit} from the trace's start", ylabel="% of uses", ylim=(0, None))
        axes.legend(frameon=False)


def _draw_reuse(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Reuse distance", loc="left")
    for name, kind in _kinds(axes, statistics):
        if kind.num_reuses:
            at_most = 100 * np.array(kind.lru.hits) / kind.num_reuses
            distances = np.array(kind.lru.sizes) - 1
            axes.step(distances, at_most, where="post", color=COLOURS[name], label=name)
    axes.set_xscale("symlog")
    _plain_numbers(axes.xaxis)
    axes.set(xlabel="other adapters used in between", ylabel="% of reuses, so many or fewer", ylim=(0, 101))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def _draw_hit_rates(axes: Any, statistics: TraceStatistics) -> None:
    axes.set_title("Hit rate against cache size", loc="left")
    for name, kind in _kinds(axes, statistics):
        axes.semilogx(
            kind.lru.sizes, _percent(kind, kind.lru.hits), color=COLOURS[name], label=f"{name}, LRU"
        )
        lfu = _percent(kind, kind.lfu.hits)
        axes.semilogx(kind.lfu.sizes, lfu, "o", markersize=4, color=COLOURS[name], label=f"{name}, LFU")
        axes.set(xlabel="adapters that the cache holds", ylabel="% of uses", ylim=(0, 101))
        _plain_numbers(axes.xaxis)
        axes.legend(frameon=False)


def _percent(kind: AdapterStatistics, hits: Sequence[int]) -> Any:
    return 100 * np.array(hits) / kind.num_uses


def _kinds(axes: Any, statistics: TraceStatistics) -> list[tuple[str, AdapterStatistics]]:
    if not statistics.kinds:
        _say(axes, "no request has an adapter")
    return list(statistics.kinds.items())


def _plain_numbers(*scales: Any) -> None:
    """Write 100 in place of a power of ten."""
    for scale in scales:
        scale.set_major_formatter(lambda number, _: f"{number:,.10g}")
        scale.set_minor_formatter("")


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)


def _edges(bins: Bins) -> tuple[Any, str]:
    unit, unit_s = time_unit(bins.start_s + bins.count * bins.width_s)
    return (bins.start_s + bins.width_s * np.arange(bins.count + 1)) / unit_s, _UNITS[unit]
