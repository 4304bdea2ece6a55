"""Decides when each request of an open loop arrives."""

from __future__ import annotations

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


def _random_times(load: RateLoad) -> Iterator[float]:
    """Yield moments whose gaps follow a gamma distribution with mean 1/rate; the first is 0."""
    random = np.random.default_rng(load.seed)
    scale_s = 0.0 if math.isinf(load.request_rate) else 1 / (load.request_rate * load.burstiness)
    at_s = 0.0
    while True:
        yield at_s
        at_s += float(random.gamma(load.burstiness, scale_s)) if scale_s > 0 else 0.0
