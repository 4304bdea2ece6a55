"""Measures how like two sets of requests are: adapters per request, hit rates, gaps, popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swiftdiff.trace.statistics.lru import lru_hits, previous_uses, stack_distances
from swiftdiff.trace.synthesis.fit_locality import top_shares
from swiftdiff.trace.synthesis.observations import Floats, Observations, Uses

MAX_CACHE = 500
AIM_SHARE = 0.01
AIM_HIT_RATE = 0.05
AIM_KS = 0.1


@dataclass(frozen=True)
class Likeness:
    """How far one set of requests is from another; all are shares from 0 to 1.

    Attributes:
        per_request: Greatest difference of the shares of requests with 0, 1, ... LoRAs.
        hit_rate: Greatest difference of hit rates of LRU caches for 1 to 500 LoRAs.
        at_cache: The cache size where it is.
        hit_rate_from_4: The same for caches of 4 and more.
        ks: Kolmogorov and Smirnov's distance between the distributions of gaps between arrivals.
        top_10: Difference of the shares of uses of the ten most used LoRAs.
    """

    per_request: float
    hit_rate: float
    at_cache: int
    hit_rate_from_4: float
    ks: float
    top_10: float


def compare(made: Observations, real: Observations) -> Likeness:
    """Return how far made-up requests are from real ones."""
    numbers = max(map(len, made.loras + real.loras)) + 1
    shares = np.abs(shares_per_request(made.loras, numbers) - shares_per_request(real.loras, numbers))
    off = np.abs(hit_rates(made.loras) - hit_rates(real.loras))
    tops = [top_shares(_names(part.loras))[2] for part in (made, real)]
    return Likeness(
        per_request=float(shares.max()),
        hit_rate=float(off.max()),
        at_cache=int(off.argmax()) + 1,
        hit_rate_from_4=float(off[3:].max()),
        ks=ks_distance(np.diff(made.arrivals_s), np.diff(real.arrivals_s)),
        top_10=float(tops[0] - tops[1]),
    )


def shares_per_request(requests: Uses, numbers: int) -> Floats:
    """Return the shares of requests with 0, 1, ... adapters."""
    counts = np.bincount([len(request) for request in requests], minlength=numbers)
    shares: Floats = counts / len(requests)
    return shares


def hit_rates(requests: Uses, max_cache: int = MAX_CACHE) -> Floats:
    """Return the hit rate of an LRU cache that holds 1, 2, ... adapters, over all uses, empty at first."""
    names = _names(requests)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    uses = np.array([numbers[name] for name in names], dtype=np.int32)
    hits = lru_hits(stack_distances(previous_uses(uses)), max_cache)[:max_cache]
    rates: Floats = hits / max(len(names), 1)
    return rates


def ks_distance(first: Floats, second: Floats) -> float:
    """Return the greatest difference of two empirical distribution functions."""
    first, second = np.sort(first), np.sort(second)
    at = np.concatenate([first, second])
    below = [np.searchsorted(sample, at, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _names(requests: Uses) -> Sequence[str]:
    return [name for request in requests for name in request]
