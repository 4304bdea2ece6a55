"""Owns ratios of paired measurements and their spread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

MIN_FOR_BOOTSTRAP = 8  # a bootstrap of fewer values can hardly leave them: their range says more
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """A median and how far to trust it.

    Attributes:
        median: Of the values.
        low: Lower end.
        high: Upper end.
        count: How many values there are.
        method: What the ends are: ``range``, the lowest and highest value; or ``bootstrap95``, a 95 %
            interval of the median.
    """

    median: float
    low: float
    high: float
    count: int
    method: Literal["range", "bootstrap95"]

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def pair_ratios(baseline: Mapping[Key, float], other: Mapping[Key, float]) -> list[float]:
    """Return ``baseline / other`` for each key that both have: how many times faster the other was."""
    return [baseline[key] / other[key] for key in baseline if key in other and other[key] > 0]


def spread_of(values: Sequence[float], seed: int = 0) -> Spread | None:
    """Return median and spread; None of no values.

    The percentile bootstrap (Efron, 1979) is used from `MIN_FOR_BOOTSTRAP` values on, else the range. The
    range of five values holds the true median in 94 % of cases.
    """
    if not values:
        return None
    array = np.asarray(values, float)
    median = float(np.median(array))
    if len(array) < MIN_FOR_BOOTSTRAP:
        return Spread(median, float(array.min()), float(array.max()), len(array), "range")
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(array, (_RESAMPLES, len(array))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Spread(median, float(low), float(high), len(array), "bootstrap95")
