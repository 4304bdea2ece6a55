"""Owns what is kept of a trace for its statistics: an arrival a request and two numbers an adapter use."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class AdapterUses:
    """All uses of one kind of adapter, in order.

    A use is one adapter of one request: an id that a request names twice is one use. A request's adapters
    follow each other in the order in which it names them.

    Attributes:
        num_ids: Number of different ids.
        adapters: The adapter of each use, numbered from 0 in order of first use.
        requests: The request of each use, numbered from 0 in order of arrival.
    """

    num_ids: int
    adapters: Ints
    requests: Ints


@dataclass(frozen=True)
class TraceUses:
    """What is kept of a trace: eight bytes a request and eight a use, and each id once while it is read.

    Attributes:
        arrivals_s: Arrival of each request in seconds, not descending.
        loras: Uses of LoRAs.
        controlnets: Uses of ControlNets.
    """

    arrivals_s: Floats
    loras: AdapterUses
    controlnets: AdapterUses


def collect_uses(requests: Iterable[ImageRequest]) -> TraceUses:
    """Return what the statistics need of a trace's requests, which are gone through once and not kept."""
    arrivals_ms = array("d")
    loras, controlnets = _Collector(), _Collector()
    for index, request in enumerate(requests):
        arrivals_ms.append(request.timestamp)
        if request.loras:
            loras.add(index, request.loras)
        if request.controlnets:
            controlnets.add(index, request.controlnets)
    arrivals_s = np.frombuffer(arrivals_ms, dtype=np.float64) / 1000
    return TraceUses(arrivals_s, loras.finish(), controlnets.finish())


class _Collector:
    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._adapters, self._requests = array("i"), array("i")

    def add(self, request: int, uses: tuple[LoraUse, ...] | tuple[ControlNetUse, ...]) -> None:
        for name in dict.fromkeys(use.id for use in uses):
            self._adapters.append(self._numbers.setdefault(name, len(self._numbers)))
            self._requests.append(request)

    def finish(self) -> AdapterUses:
        adapters = np.frombuffer(self._adapters, dtype=np.int32)
        return AdapterUses(len(self._numbers), adapters, np.frombuffer(self._requests, dtype=np.int32))
