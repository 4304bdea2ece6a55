"""Decides when requests arrive: at a constant, daily or on/off rate, more or less in bursts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from swiftdiff.trace.synthesis.gaps import Gaps
from swiftdiff.trace.synthesis.streams import stream
from swiftdiff.validation import StrictModel

_CHUNK = 4096

Rate = Annotated[float, Field(gt=0, le=1e6)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]


class Poisson(StrictModel):
    """Arrivals that know nothing of each other.

    Attributes:
        rate_per_s: Mean requests a second.
    """

    rate_per_s: Rate


class Gamma(StrictModel):
    """Gaps that are gamma distributed.

    Attributes:
        rate_per_s: Mean requests a second.
        shape: Below 1 requests come in bursts, 1 is Poisson, above 1 they come evenly (``--burstiness``).
    """

    rate_per_s: Rate
    shape: Annotated[float, Field(ge=0.01, le=1000)]


class Diurnal(StrictModel):
    """A rate that follows a curve over the day, and drifts.

    Attributes:
        rate_per_s: Mean requests a second, over a whole period.
        curve: The rate in each slot of the period, relative to the others: 24 numbers are hours of a day.
        period_s: Seconds after which the curve repeats.
        start_s: Where in the period the trace begins.
        shape: As in `Gamma`, for the gaps within a slot.
        drift: Standard deviation of the logarithm of a random factor on each slot's rate; 0 is none.
        drift_persistence: Correlation of that logarithm from one slot to the next, 0 to below 1.
    """

    rate_per_s: Rate
    curve: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]
    period_s: Seconds = 86400.0
    start_s: Annotated[float, Field(ge=0)] = 0.0
    shape: Annotated[float, Field(ge=0.01, le=1000)] = 1.0
    drift: Annotated[float, Field(ge=0, le=5)] = 0.0
    drift_persistence: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_curve(self) -> Self:
        if sum(self.curve) <= 0:
            raise ValueError("given with a curve that is above 0 somewhere")
        return self


class OnOff(StrictModel):
    """Bursts: a high rate for a while, then a low one; how long is exponentially distributed.

    Attributes:
        on_rate_per_s: Requests a second within a burst.
        off_rate_per_s: Requests a second between bursts; may be 0.
        mean_on_s: Mean length of a burst.
        mean_off_s: Mean length of a pause.
    """

    on_rate_per_s: Rate
    off_rate_per_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    mean_on_s: Seconds
    mean_off_s: Seconds


class Arrivals(StrictModel):
    """How requests arrive: exactly one of these is given."""

    poisson: Poisson | None = None
    gamma: Gamma | None = None
    diurnal: Diurnal | None = None
    on_off: OnOff | None = None
    gaps: Gaps | None = None

    @model_validator(mode="after")
    def _check_that_one_is_given(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                f"one table of {', '.join(f'arrivals.{name}' for name in type(self).model_fields)}"
            )
        return self


def arrival_times(arrivals: Arrivals, seed: int, resolution_s: float) -> Iterator[float]:
    """Yield arrival times in seconds from the trace's start, never falling, for ever.

    Args:
        arrivals: What to draw.
        seed: The trace's.
        resolution_s: The clock's step for `Gaps`, which are drawn in whole steps.
    """
    generator = stream(seed, "arrivals")
    if arrivals.gaps is not None:
        return arrivals.gaps.times(generator, resolution_s)
    rates = stream(seed, "arrivals.rates")
    if arrivals.poisson is not None:
        return _rescaled(generator, 1.0, _constant(arrivals.poisson.rate_per_s))
    if arrivals.gamma is not None:
        return _rescaled(generator, arrivals.gamma.shape, _constant(arrivals.gamma.rate_per_s))
    if arrivals.diurnal is not None:
        return _rescaled(generator, arrivals.diurnal.shape, _daily(arrivals.diurnal, rates))
    assert arrivals.on_off is not None
    return _rescaled(generator, 1.0, _bursts(arrivals.on_off, rates))


def _rescaled(
    generator: np.random.Generator, shape: float, slots: Iterator[tuple[float, float]]
) -> Iterator[float]:
    """Yield times of a renewal process of rate 1 whose clock runs at each slot's rate.

    Args:
        generator: Draws the gaps.
        shape: Of the gamma distributed gaps, whose mean is 1.
        slots: (length in seconds, rate) of one slot after the other, for ever.
    """
    due = 0.0  # expected number of requests until the next arrival
    begin, counted = 0.0, 0.0  # the current slot's start, in seconds and in expected requests
    length, rate = next(slots)
    while True:
        for gap in generator.gamma(shape, 1 / shape, _CHUNK).tolist():
            due += gap
            while due > counted + length * rate:
                begin += length
                counted += length * rate
                length, rate = next(slots)
            yield begin + (due - counted) / rate if rate > 0 else begin


def _constant(rate: float) -> Iterator[tuple[float, float]]:
    while True:
        yield 3600.0, rate


def _daily(diurnal: Diurnal, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    number = len(diurnal.curve)
    length = diurnal.period_s / number
    scale = diurnal.rate_per_s * number / sum(diurnal.curve)
    at = diurnal.start_s % diurnal.period_s
    slot = int(at // length) % number
    first = length - (at - slot * length)
    persistence = diurnal.drift_persistence
    state = generator.normal()
    while True:
        factor = np.exp(diurnal.drift * state - diurnal.drift**2 / 2)
        yield first, scale * diurnal.curve[slot] * float(factor)
        first = length
        slot = (slot + 1) % number
        state = persistence * state + np.sqrt(1 - persistence**2) * generator.normal()


def _bursts(on_off: OnOff, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    while True:
        yield generator.exponential(on_off.mean_on_s), on_off.on_rate_per_s
        yield generator.exponential(on_off.mean_off_s), on_off.off_rate_per_s
