"""Estimates with 95 % confidence intervals: shares by Wilson, means by theory or bootstrap, ratios."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

_Z = 1.959964
_RESAMPLES: Final = 4_000
_DRAWS: Final = 40_000_000  # at most so many in all: of very many values fewer resamples are enough
_DRAWS_AT_ONCE: Final = 2_000_000


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


def bootstrap_mean(
    values: Sequence[float], seed: int = 0, groups: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean with a bootstrap interval; the same values and seed give the same one.

    Args:
        values: One a picture, a request or a pair of them.
        seed: Of the resampling.
        groups: What each value belongs to, such as its request: groups are drawn whole, because pictures of
            one request are alike.
    """
    if not len(values):
        return Estimate(0.0, 0.0, 0.0, 0)
    array = np.asarray(values, np.float64)
    _, group = np.unique([repr(name) for name in groups], return_inverse=True) if groups else (0, None)
    sums = array if group is None else np.bincount(group, array).astype(np.float64)
    counts = np.ones_like(array) if group is None else np.bincount(group).astype(np.float64)
    return _bootstrap(sums[:, None], counts[:, None], len(array), seed)


def bootstrap_ratio(baseline: ArrayLike, other: ArrayLike, seed: int = 0) -> Estimate | None:
    """How many times as fast `other` is: the ratio of the means, baseline's over other's, with its interval.

    Requests are drawn as pairs, and repeats of the whole run are drawn too (the pigeonhole bootstrap of Owen,
    2007), since all requests of one repeat share the machine's mood. Where either is missing neither counts.

    Args:
        baseline: Times or costs, [requests] or [requests, repeats]; NaN where a request was not served.
        other: Of the same requests and repeats.
        seed: Of the resampling.

    Returns:
        The ratio, `count` the number of requests that count; None if there is nothing to divide by.
    """
    before, after = (_table(np.asarray(values, np.float64)) for values in (baseline, other))
    is_paired = ~np.isnan(before) & ~np.isnan(after)
    kept = is_paired.any(1)
    before, after = (np.where(is_paired, values, 0.0)[kept] for values in (before, after))
    if not after.sum() > 0:
        return None
    return _bootstrap(before, after, len(after), seed)


def _table(values: Floats) -> Floats:
    return values[:, None] if values.ndim == 1 else values


def _bootstrap(above: Floats, below: Floats, count: int, seed: int) -> Estimate:
    """Ratio of two sums over [N, R] with the percentile interval of resampled rows and columns.

    Of few values the percentiles of a bootstrap are too near; they are moved outwards as Student's t does for
    a mean (Hesterberg, 2015, "What teachers should know about the bootstrap", expanded percentile interval).
    One value alone has no spread: both ends are the value.
    """
    rng = np.random.default_rng(seed)
    rows, columns = above.shape
    ratios = []
    left = max(200, min(_RESAMPLES, _DRAWS // (rows * columns)))
    while left > 0:
        size = min(left, max(1, _DRAWS_AT_ONCE // (rows * columns)))
        row = rng.integers(rows, size=(size, rows))
        column = rng.integers(columns, size=(size, columns))
        with np.errstate(invalid="ignore", divide="ignore"):
            sums = [np.take_along_axis(table[row].sum(1), column, 1).sum(1) for table in (above, below)]
            ratios.append(sums[0] / sums[1])
        left -= size
    drawn = np.concatenate(ratios)
    size = rows if rows > 1 else columns
    tail = special.ndtr(special.stdtrit(size - 1, 0.025) * sqrt(size / (size - 1))) if size > 1 else 0.5
    low, high = np.quantile(drawn[np.isfinite(drawn)], (tail, 1 - tail))
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), count)
