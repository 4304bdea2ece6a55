"""Decides into which equal stretches of time a trace is cut for what is shown over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swiftdiff.trace.statistics.uses import Floats

MAX_BINS = 200
_HOUR, _DAY = 3600.0, 86400.0
_WIDTHS_S = (
    *(0.001, 0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY),
)


@dataclass(frozen=True)
class Bins:
    """Equal stretches of time, one after the other.

    Attributes:
        start_s: Where the first begins, in seconds from the trace's start.
        width_s: Length of each.
        count: How many there are.
    """

    start_s: float
    width_s: float
    count: int

    @classmethod
    def over(cls, arrivals_s: Floats) -> Bins:
        """Return at most `MAX_BINS` and one bins of a round width that hold all arrivals (at least one)."""
        first, last = float(arrivals_s[0]), float(arrivals_s[-1])
        span = last - first
        width = next((width for width in _WIDTHS_S if span <= MAX_BINS * width), span / MAX_BINS)
        width = width if span else 1.0
        start = min(math.floor(first / width) * width, first)
        return cls(start, width, int((last - start) / width) + 1)

    def tally(self, moments_s: Floats) -> tuple[int, ...]:
        """Return how many of the moments, which all lie within, fall into each bin."""
        places = ((moments_s - self.start_s) / self.width_s).astype(np.int64)
        counts: NDArray[np.int64] = np.bincount(np.clip(places, 0, self.count - 1), minlength=self.count)
        return tuple(counts.tolist())
