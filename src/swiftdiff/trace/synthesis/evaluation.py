"""Judges the fit: on parts of a source that it did not see, and on the part that it saw.

``python -m swiftdiff.trace.synthesis.evaluation SOURCE FOLDER`` writes tables and a page of plots.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from swiftdiff.files import write_whole
from swiftdiff.trace.synthesis.comparison import (
    AIM_HIT_RATE,
    AIM_KS,
    AIM_SHARE,
    Likeness,
    compare,
    hit_rates,
    shares_per_request,
)
from swiftdiff.trace.synthesis.fit import fit_spec
from swiftdiff.trace.synthesis.generator import content_pool, generate
from swiftdiff.trace.synthesis.observations import Observations, observe, observe_requests
from swiftdiff.trace.synthesis.spec import TraceSpec

_SEEDS = tuple(range(1, 9))
_CACHES = (1, 2, 3, 4, 5, 8, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Split:
    """Which fractions of a source a fit sees, and on which it is judged."""

    name: str
    seen: tuple[float, float]
    judged: tuple[float, float]


SPLITS = (
    Split("first half, judged on second", (0, 0.5), (0.5, 1)),
    Split("quarter 1, judged on 2", (0, 0.25), (0.25, 0.5)),
    Split("quarters 1-2, judged on 3", (0, 0.5), (0.5, 0.75)),
    Split("quarters 1-3, judged on 4", (0, 0.75), (0.75, 1)),
    Split("all, judged on all (seen)", (0, 1), (0, 1)),
)


def make_like(spec: TraceSpec, like: Observations, seed: int) -> Observations:
    """Return made-up requests, as many as ``like`` has."""
    number = max(len(like.loras), len(like.arrivals_s))
    made = observe_requests(islice(generate(spec, seed, content_pool(spec, seed, "unused")), number))
    loras, arrivals = made.loras[: len(like.loras)], made.arrivals_s[: len(like.arrivals_s)]
    return Observations(arrivals_s=arrivals, loras=loras)


def judge(observed: Observations, split: Split) -> tuple[list[Likeness], Likeness]:
    """Return how made-up requests of each seed compare with the judged part, and how the seen part does.

    The last says how much the source itself changed between the two parts: no fit can be expected to know.
    """
    seen, judged = observed.part(*split.seen), observed.part(*split.judged)
    spec = fit_spec(seen)
    made = [compare(make_like(spec, judged, seed), judged) for seed in _SEEDS]
    return made, compare(seen, judged)


def evaluate(source: Path, folder: Path) -> None:
    """Write ``fit.csv``, ``hit-rates.csv``, ``report.md`` and ``fit.png`` into a folder."""
    observed = observe(source)
    results = {split.name: judge(observed, split) for split in SPLITS}
    write_whole(folder / "fit.csv", "".join(_csv(results)).encode())
    write_whole(folder / "hit-rates.csv", "".join(_hit_rate_rows(observed)).encode())
    write_whole(folder / "report.md", "".join(_report(results)).encode())
    _plot(observed, folder / "fit.png")


Results = dict[str, tuple[list[Likeness], Likeness]]


def _csv(results: Results) -> Iterator[str]:
    yield "split,made_by,adapters_per_request,hit_rate,at_cache,hit_rate_from_4,ks,top_10\n"
    for name, (made, drift) in results.items():
        makers = (*(f"fit seed {seed}" for seed in _SEEDS), "seen part")
        for row, who in zip((*made, drift), makers, strict=True):
            yield (
                f'"{name}",{who},{row.per_request:.4f},{row.hit_rate:.4f},{row.at_cache},'
                f"{row.hit_rate_from_4:.4f},{row.ks:.4f},{row.top_10:.4f}\n"
            )


def _report(results: Results) -> Iterator[str]:
    yield "# How like the source made-up requests are\n\n"
    yield (
        "Greatest differences in points of 100 (KS from 0 to 1): the median of eight seeds and the worst. In "
        "brackets the part that the fit saw against the judged part: how much the source itself changed."
        "\n\n"
    )
    yield "| fit | LoRAs per request | LRU 1 to 500 | at size | LRU 4 to 500 | gaps, KS | top ten |\n"
    yield "|---|---|---|---|---|---|---|\n"
    for name, (made, drift) in results.items():
        at = max(made, key=lambda row: row.hit_rate).at_cache
        cells = [
            _cell([100 * row.per_request for row in made], 100 * drift.per_request, 1),
            _cell([100 * row.hit_rate for row in made], 100 * drift.hit_rate, 1),
            str(at),
            _cell([100 * row.hit_rate_from_4 for row in made], 100 * drift.hit_rate_from_4, 1),
            _cell([row.ks for row in made], drift.ks, 3),
            f"{100 * np.median([row.top_10 for row in made]):.1f} ({100 * drift.top_10:.1f})",
        ]
        yield f"| {name} | {' | '.join(cells)} |\n"
    hits = f"{100 * AIM_HIT_RATE:g}"
    yield f"| aim | {100 * AIM_SHARE:g} | {hits} | | {hits} | {AIM_KS:g} | |\n"


def _cell(made: list[float], drift: float, digits: int) -> str:
    return f"{np.median(made):.{digits}f}, {max(made):.{digits}f} ({drift:.{digits}f})"


def _hit_rate_rows(observed: Observations) -> Iterator[str]:
    seen, judged = observed.part(0, 0.5), observed.part(0.5, 1)
    columns = {
        "seen": seen,
        "judged": judged,
        "fit_seed_1": make_like(fit_spec(seen), judged, 1),
    }
    yield f"cache,{','.join(columns)}\n"
    rates = [hit_rates(part.loras) for part in columns.values()]
    for size in _CACHES:
        yield f"{size},{','.join(f'{rate[size - 1]:.4f}' for rate in rates)}\n"


def _plot(observed: Observations, path: Path) -> None:
    """Draw the half that the fit saw, the half that it did not, and what it makes."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen, judged = observed.part(0, 0.5), observed.part(0.5, 1)
    made = make_like(fit_spec(seen), judged, 1)
    parts = {"first half (seen)": seen, "second half (judged)": judged, "made up": made}
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for (name, part), colour in zip(parts.items(), ("0.65", "black", "tab:red"), strict=True):
        style = {"label": name, "color": colour, "linewidth": 1.5}
        axes[0, 0].plot(np.arange(1, 501), 100 * hit_rates(part.loras), **style)
        gaps = np.sort(np.diff(part.arrivals_s))
        axes[0, 1].plot(gaps + 1, np.arange(1, len(gaps) + 1) / len(gaps) * 100, **style)
        shares = 100 * shares_per_request(part.loras, 7)[:7]
        axes[1, 0].plot(range(7), shares, marker="o", **style)
        names = np.unique([name for request in part.loras for name in request], return_counts=True)[1]
        ranked = np.sort(names)[::-1]
        axes[1, 1].plot(np.arange(1, len(ranked) + 1), 100 * np.cumsum(ranked) / ranked.sum(), **style)
    labels = (
        ("LoRAs in an LRU cache", "hits, %", "LRU hit rate"),
        ("gap between arrivals, s, plus 1", "gaps up to it, %", "Gaps"),
        ("LoRAs of a request", "requests, %", "LoRAs per request"),
        ("most used LoRAs", "their uses, %", "Popularity"),
    )
    for axis, (x, y, title) in zip(axes.flat, labels, strict=True):
        axis.set(xlabel=x, ylabel=y, title=title)
        axis.grid(alpha=0.3)
    for axis in (axes[0, 0], axes[0, 1], axes[1, 1]):
        axis.set_xscale("log")
    axes[1, 0].set_yscale("symlog", linthresh=0.1)
    axes[0, 0].legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    write_whole(path, buffer.getvalue())


if __name__ == "__main__":
    evaluate(Path(sys.argv[1]), Path(sys.argv[2]))
