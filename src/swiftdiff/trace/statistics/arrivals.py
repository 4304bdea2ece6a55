"""Describes when requests arrive: how many over time, and how far that is from even and from random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from swiftdiff.trace.statistics.bins import Bins
from swiftdiff.trace.statistics.uses import Floats

WINDOWS_S = (1, 10, 60, 600, 3600, 86400)
MIN_WINDOWS = 10  # a variance of fewer counts says little
_Number = TypeVar("_Number", np.float64, np.int64)


@dataclass(frozen=True)
class Dispersion:
    """How uneven the counts of arrivals in equal windows are.

    Attributes:
        window_s: Length of a window.
        windows: How many whole windows follow the first arrival.
        index: Variance of their counts over the mean: 1 is Poisson, 0 even, more is bursty.
    """

    window_s: float
    windows: int
    index: float


@dataclass(frozen=True)
class Arrivals:
    """When requests arrive. What one request alone does not have is None.

    Attributes:
        num_requests: Number of requests.
        first_s: First arrival, from the trace's start.
        span_s: From the first arrival to the last.
        rate_per_s: Gaps over the span.
        gap_percentiles_s: Gaps between arrivals, by name such as ``p50``.
        gap_cv: Standard deviation of the gaps over their mean: 1 is Poisson, 0 even, more is bursty.
        dispersion: For each of `WINDOWS_S` of which at least `MIN_WINDOWS` fit.
        bins: The stretches of time of ``counts``.
        counts: Requests in each.
    """

    num_requests: int
    first_s: float
    span_s: float
    rate_per_s: float | None
    gap_percentiles_s: dict[str, float] | None
    gap_cv: float | None
    dispersion: tuple[Dispersion, ...]
    bins: Bins
    counts: tuple[int, ...]


def describe_arrivals(arrivals_s: Floats) -> Arrivals:
    """Return how requests arrive; there is at least one, and the arrivals do not descend."""
    gaps_s = np.diff(arrivals_s)
    span_s = float(arrivals_s[-1] - arrivals_s[0])
    bins = Bins.over(arrivals_s)
    return Arrivals(
        num_requests=len(arrivals_s),
        first_s=float(arrivals_s[0]),
        span_s=span_s,
        rate_per_s=len(gaps_s) / span_s if span_s else None,
        gap_percentiles_s=percentiles(gaps_s),
        # Of gaps over their mean, since squares of gaps may be beyond what a float holds.
        gap_cv=float(np.std(gaps_s * (len(gaps_s) / span_s))) if span_s else None,
        dispersion=tuple(
            _dispersion(arrivals_s, window) for window in WINDOWS_S if span_s >= MIN_WINDOWS * window
        ),
        bins=bins,
        counts=bins.tally(arrivals_s),
    )


def percentiles(values: NDArray[_Number]) -> dict[str, Any] | None:
    """Return p10, p50, p90 and p99, each one of the values, or None of nothing."""
    if not len(values):
        return None
    names = (10, 50, 90, 99)
    found = np.percentile(values, names, method="inverted_cdf")
    return dict(zip((f"p{name}" for name in names), found.tolist(), strict=True))


def _dispersion(arrivals_s: Floats, window_s: float) -> Dispersion:
    places = np.floor((arrivals_s - arrivals_s[0]) / window_s)
    windows = int(places[-1])  # the last one is not whole
    # Only windows with arrivals are counted one by one: a trace may have more empty ones than memory holds.
    counts = np.unique(places[places < windows], return_counts=True)[1].astype(np.float64)
    mean = counts.sum() / windows
    return Dispersion(window_s, windows, float((counts**2).sum() / windows / mean - mean))
