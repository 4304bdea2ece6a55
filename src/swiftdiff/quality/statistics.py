"""Estimates with 95 % confidence intervals: shares by Wilson, means by the normal approximation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value, the ends of its 95 % confidence interval, and how many observations it rests on."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """The fields, rounded to what they can mean."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def wilson_share(right: int, count: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson, 1927), which holds near 0 and 1 as well.

    Objects of one picture are counted as independent, so intervals over objects are a little too narrow.
    """
    if count == 0:
        return Estimate(0.0, 0.0, 1.0, 0)
    share = right / count
    spread = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / spread
    half = _Z * sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / spread
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(share, min(low, share), max(high, share), count)


def mean_of(values: Sequence[float]) -> Estimate:
    """Mean with the interval of the normal approximation."""
    if not values:
        return Estimate(0.0, 0.0, 0.0, 0)
    mean = float(np.mean(values))
    half = _Z * float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(mean, mean - half, mean + half, len(values))
