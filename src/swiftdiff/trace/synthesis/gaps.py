"""Decides when requests arrive by gaps that were measured: their quantiles, the hour, and how long it lasts.

Every gap has a normal score, the sum of the hour's shift, a part that persists from request to request and
one that does not; the score's probability picks the gap from a table (a Gaussian copula). Without a curve the
table holds quantiles of gaps. With one, scores are no longer normal, and a fit shifts the table's
probabilities so that gaps are distributed as they were measured all the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from statistics import NormalDist
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from swiftdiff.validation import StrictModel

_CHUNK = 4096
_MOST_SCORE = 6.0  # beyond it lies one gap in 10^9

Probability = Annotated[float, Field(ge=0, le=1)]


class Gaps(StrictModel):
    """Gaps between arrivals, by their quantiles.

    Attributes:
        probabilities: Rising from 0 to 1: that of a normal score to lie below what gives each gap.
        seconds: The gap at each probability, never falling; in between it is interpolated.
        curve: For each slot of the period, by how many standard deviations its gaps are longer; negative
            is busier. Empty is no curve.
        period_s: Seconds after which the curve repeats.
        start_s: Where in the period the trace begins.
        spread: Standard deviation of the score within a slot.
        persistent_share: Share of that variance that persists from request to request.
        persistence: Correlation of the persistent part from one request to the next.
    """

    probabilities: Annotated[tuple[Probability, ...], Field(min_length=2)]
    seconds: Annotated[tuple[Annotated[float, Field(ge=0, le=1e9)], ...], Field(min_length=2)]
    curve: tuple[float, ...] = ()
    period_s: Annotated[float, Field(gt=0, le=1e9)] = 86400.0
    start_s: Annotated[float, Field(ge=0)] = 0.0
    spread: Annotated[float, Field(gt=0, le=10)] = 1.0
    persistent_share: Probability = 0.0
    persistence: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_quantiles(self) -> Self:
        rising = all(a < b for a, b in zip(self.probabilities, self.probabilities[1:], strict=False))
        if not rising or self.probabilities[0] != 0 or self.probabilities[-1] != 1:
            raise ValueError("given with probabilities that rise from 0 to 1")
        if len(self.seconds) != len(self.probabilities):
            raise ValueError("given with as many seconds as probabilities")
        if list(self.seconds) != sorted(self.seconds) or self.seconds[-1] <= 0:
            raise ValueError("given with seconds that never fall and end above 0")
        return self

    def times(self, generator: np.random.Generator, resolution_s: float) -> Iterator[float]:
        """Yield arrival times in seconds, the first at 0, for ever.

        Args:
            generator: Draws the scores.
            resolution_s: Gaps are rounded down to whole steps of this clock.
        """
        return (at for at, _ in self.walk(generator, resolution_s))

    def walk(self, generator: np.random.Generator, resolution_s: float) -> Iterator[tuple[float, float]]:
        """Yield arrival times as `times` does, each with the score of the gap that follows."""
        normal = NormalDist()
        slots = max(len(self.curve), 1)
        curve = self.curve or (0.0,)
        at = 0.0
        for drawn in self._scores(generator):
            slot = int((self.start_s + at) % self.period_s / self.period_s * slots) % slots
            score = min(max(curve[slot] + drawn, -_MOST_SCORE), _MOST_SCORE)
            yield at, score
            at += int(self._quantile(normal.cdf(score)) / resolution_s + 1e-9) * resolution_s

    def _scores(self, generator: np.random.Generator) -> Iterator[float]:
        """Yield normal scores without the curve."""
        kept = self.spread * math.sqrt(self.persistent_share)
        fresh = self.spread * math.sqrt(1 - self.persistent_share)
        innovation = math.sqrt(1 - self.persistence**2)
        state = float(generator.normal())
        while True:
            for first, second in generator.normal(size=(_CHUNK, 2)).tolist():
                yield kept * state + fresh * first
                state = self.persistence * state + innovation * second

    def _quantile(self, probability: float) -> float:
        """Return the gap below which a share of gaps lies, interpolated."""
        index = min(bisect_right(self.probabilities, probability), len(self.probabilities) - 1)
        low, high = self.probabilities[index - 1], self.probabilities[index]
        share = (probability - low) / (high - low)
        return self.seconds[index - 1] + share * (self.seconds[index] - self.seconds[index - 1])
