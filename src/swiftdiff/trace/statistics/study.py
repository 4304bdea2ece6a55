"""Describes a whole trace from one pass over its requests, which are not kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from swiftdiff.errors import TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.statistics.adapters import AdapterStatistics, describe_adapters
from swiftdiff.trace.statistics.arrivals import Arrivals, describe_arrivals
from swiftdiff.trace.statistics.uses import TraceUses, collect_uses


@dataclass(frozen=True)
class AdapterCounts:
    """How many requests have 0, 1, 2, ... different adapters; each list ends at its largest number.

    Attributes:
        loras: By number of LoRAs.
        controlnets: By number of ControlNets.
        both: Requests that have at least one of each.
    """

    loras: tuple[int, ...]
    controlnets: tuple[int, ...]
    both: int


@dataclass(frozen=True)
class TraceStatistics:
    """What is in a trace.

    Attributes:
        arrivals: When requests come.
        adapter_counts: How many adapters they have.
        loras: How LoRAs are used; None if they are not.
        controlnets: How ControlNets are used; None if they are not.
    """

    arrivals: Arrivals
    adapter_counts: AdapterCounts
    loras: AdapterStatistics | None
    controlnets: AdapterStatistics | None

    @property
    def kinds(self) -> dict[str, AdapterStatistics]:
        """The statistics of the kinds of adapters that are used, by a heading."""
        both = {"LoRAs": self.loras, "ControlNets": self.controlnets}
        return {name: kind for name, kind in both.items() if kind is not None}


def study_trace(requests: Iterable[ImageRequest], name: str = "the trace") -> TraceStatistics:
    """Return the statistics of a trace.

    Args:
        requests: In order of arrival, such as `read_trace` yields them.
        name: Names the trace in errors.

    Raises:
        TraceError: There is no request, or what yields them raises it.
    """
    uses = collect_uses(requests)
    if not len(uses.arrivals_s):
        raise TraceError(f"{name}: the trace holds no requests; a trace has one JSON object a line")
    arrivals = describe_arrivals(uses.arrivals_s)
    return TraceStatistics(
        arrivals=arrivals,
        adapter_counts=_adapter_counts(uses),
        loras=describe_adapters(uses.loras, uses.arrivals_s, arrivals.bins),
        controlnets=describe_adapters(uses.controlnets, uses.arrivals_s, arrivals.bins),
    )


def _adapter_counts(uses: TraceUses) -> AdapterCounts:
    num_requests = len(uses.arrivals_s)
    loras = np.bincount(uses.loras.requests, minlength=num_requests)
    controlnets = np.bincount(uses.controlnets.requests, minlength=num_requests)
    return AdapterCounts(
        loras=tuple(np.bincount(loras).tolist()),
        controlnets=tuple(np.bincount(controlnets).tolist()),
        both=int(np.sum((loras > 0) & (controlnets > 0))),
    )
