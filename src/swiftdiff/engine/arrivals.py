"""Decides when each request of an open loop arrives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from swiftdiff.engine.options import RateLoad, TraceLoad
from swiftdiff.request import ImageRequest


@dataclass(frozen=True)
class Arrival:
    """A request and the moment at which it arrives, in seconds from the start of the load."""

    at_s: float
    request: ImageRequest


def schedule(requests: Iterable[ImageRequest], load: TraceLoad | RateLoad) -> Iterator[Arrival]:
    """Yield arrivals in order, one for each request; nothing is read ahead."""
    if isinstance(load, TraceLoad):
        for request in requests:
            yield Arrival(request.timestamp / 1000 / load.speed, request)
    else:
        for request, at_s in zip(requests, _random_times(load), strict=False):
            yield Arrival(at_s, request)


def starting_at(now_s: float, arrivals: Iterator[Arrival], *, resumed: bool) -> Iterator[Arrival]:
    """Move arrivals to the run's clock: time 0 of the load is now.

    A resumed load begins with the first request that is missing: what the interruption left waiting is not
    charged for the time in which nothing ran.
    """
    shift_s = now_s
    for index, arrival in enumerate(arrivals):
        if index == 0 and resumed:
            shift_s = now_s - arrival.at_s
        yield Arrival(arrival.at_s + shift_s, arrival.request)


def warmup_requests(requests: Iterable[ImageRequest], count: int) -> Iterator[ImageRequest]:
    """Yield the first requests, from the first again if there are fewer than ``count``."""
    first = list(itertools.islice(requests, count))
    return itertools.islice(itertools.cycle(first), count)


def _random_times(load: RateLoad) -> Iterator[float]:
    """Yield moments whose gaps follow a gamma distribution with mean 1/rate; the first is 0."""
    random = np.random.default_rng(load.seed)
    scale_s = 0.0 if math.isinf(load.request_rate) else 1 / (load.request_rate * load.burstiness)
    at_s = 0.0
    while True:
        yield at_s
        at_s += float(random.gamma(load.burstiness, scale_s)) if scale_s > 0 else 0.0
