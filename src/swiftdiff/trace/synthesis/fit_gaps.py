"""Fits gaps between arrivals: their quantiles, the curve over the day, and how long busy times last.

The curve decides how many requests each hour has, and the requests of each hour how gaps are distributed. So
both are corrected together, by what a made-up trace has too much or too little of.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from scipy.special import ndtr, ndtri

from swiftdiff.trace.synthesis.gaps import Gaps
from swiftdiff.trace.synthesis.observations import Floats
from swiftdiff.trace.synthesis.streams import stream

_DAY_S = 86400.0
_SLOTS = 24
_MIN_DAYS = 2.0  # one day cannot tell the hour from the moment
_ROUNDS = 24
_SIMULATED = 30_000
_MOST_SHIFT = 3.0
_FEW = 1e-4  # added to shares of requests, so that hours without any can be compared
# The tail is resolved more finely: few gaps make up most of the time.
_PROBABILITIES = (
    *np.linspace(0, 0.9375, 31).tolist(),
    0.95,
    0.965,
    0.98,
    0.99,
    0.995,
    0.998,
    0.999,
    0.9995,
    1.0,
)
_LAGS = np.array([1, 2, 3, 5, 10, 20, 50, 100])
_SHARES = np.linspace(0, 0.95, 39)
_PERSISTENCES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)


def fit_gaps(arrivals_s: Floats, resolution_s: float) -> Gaps:
    """Return what makes gaps like those between arrivals.

    Args:
        arrivals_s: At least two, never falling, counted from the start of a day.
        resolution_s: The step of their clock.
    """
    measured = np.diff(arrivals_s)
    # A gap of whole steps stands for all that round down to it: spread it over the step, evenly.
    spread = np.random.default_rng(0).permutation(len(measured)) / len(measured)
    gaps = measured + resolution_s * (spread + 0.5 / len(measured))
    scores = ndtri((np.argsort(np.argsort(gaps)) + 0.5) / len(gaps))
    slots = _slots(arrivals_s[:-1])
    curve = np.zeros(_SLOTS)
    has_days = arrivals_s[-1] - arrivals_s[0] >= _MIN_DAYS * _DAY_S
    if has_days:
        curve = np.bincount(slots, weights=scores, minlength=_SLOTS) / np.maximum(
            np.bincount(slots, minlength=_SLOTS), 1
        )
    rest = scores - curve[slots]
    share, persistence = _persistence(rest)
    fitted = Gaps(
        probabilities=_PROBABILITIES,
        seconds=tuple(float(f"{value:.6g}") for value in np.quantile(gaps, _PROBABILITIES)),
        curve=tuple(curve.tolist()) if has_days else (),
        start_s=float(arrivals_s[0] % _DAY_S) if has_days else 0.0,
        spread=float(rest.std()) or 1.0,
        persistent_share=round(share, 3),
        persistence=persistence,
    )
    wanted = np.bincount(slots, minlength=_SLOTS) / len(slots)
    return _corrected(fitted, wanted, resolution_s) if has_days else _rounded(fitted)


def resolution_of(arrivals_s: Floats) -> float:
    """Return the largest usual step of a clock, in seconds, that all arrivals are on: 1 s to 1 ms."""
    for step in (1.0, 0.1, 0.01):
        if np.allclose(arrivals_s / step, np.round(arrivals_s / step), rtol=0, atol=1e-4):
            return step
    return 0.001


def _corrected(gaps: Gaps, wanted: Floats, resolution_s: float) -> Gaps:
    """Return gaps whose trace has the wanted share of requests in each slot, and the quantiles as given."""
    scores = ndtri(np.array(gaps.probabilities[1:-1]))
    for number in range(_ROUNDS):
        step = 0.5 / (1 + number / 8)  # smaller and smaller, so that chance in the made traces averages out
        walk = islice(gaps.walk(stream(number, "fit"), resolution_s), _SIMULATED)
        times, made_scores = np.array(list(walk)).T
        made = np.bincount(_slots(gaps.start_s + times), minlength=_SLOTS) / _SIMULATED
        curve = np.array(gaps.curve) + step * np.log((made + _FEW) / (wanted + _FEW))
        curve = np.clip(curve - wanted @ curve, -_MOST_SHIFT, _MOST_SHIFT)
        scores += step * (np.quantile(made_scores, _PROBABILITIES[1:-1]) - scores)
        probabilities = (0.0, *ndtr(scores).tolist(), 1.0)
        gaps = gaps.model_copy(update={"curve": tuple(curve.tolist()), "probabilities": probabilities})
    return _rounded(gaps)


def _rounded(gaps: Gaps) -> Gaps:
    """Return it with as many digits as matter."""
    return Gaps(
        probabilities=tuple(round(probability, 7) for probability in gaps.probabilities),
        seconds=gaps.seconds,
        curve=tuple(round(shift, 3) for shift in gaps.curve),
        start_s=gaps.start_s,
        spread=round(gaps.spread, 4),
        persistent_share=gaps.persistent_share,
        persistence=gaps.persistence,
    )


def _slots(times_s: Floats) -> np.ndarray:
    return (times_s % _DAY_S // (_DAY_S / _SLOTS)).astype(int)


def _persistence(scores: Floats) -> tuple[float, float]:
    """Return share and persistence that come nearest to the correlations of scores that lie apart."""
    lags = _LAGS[len(scores) > 10 * _LAGS]
    if not len(lags):
        return 0.0, 0.0
    centred = scores - scores.mean()
    measured = np.array([centred[:-lag] @ centred[lag:] / (len(centred) - lag) for lag in lags])
    measured /= max(float(centred.var()), 1e-12)
    options = [(share, persistence) for persistence in _PERSISTENCES for share in _SHARES]
    errors = [float(np.sum((share * persistence**lags - measured) ** 2)) for share, persistence in options]
    share, persistence = options[int(np.argmin(errors))]
    return float(share), persistence
