"""Decides with how many threads stock computes fastest, from measurements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from swiftdiff.bench.records import Measurement

_PREFIX = "stock@"


def thread_candidates(num_cores: int) -> list[int]:
    """Return the thread counts to try: powers of two, and all cores."""
    powers = [1 << bit for bit in range(num_cores.bit_length()) if 1 << bit <= num_cores]
    return sorted({*powers, num_cores})


def thread_label(count: int) -> str:
    """Return what a measurement with so many threads names as its system."""
    return f"{_PREFIX}{count}"


def seconds_by_threads(model: str, measurements: Iterable[Measurement]) -> dict[int, float]:
    """Return for each thread count the sum over settings of the median seconds, fewest threads first.

    A count that failed in a setting is left out.
    """
    seconds: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured in measurements:
        if measured.purpose == "threads" and measured.model == model and measured.total_s is not None:
            count = int(measured.system.removeprefix(_PREFIX))
            seconds[count][measured.setting].append(measured.total_s)
    most = max((len(settings) for settings in seconds.values()), default=0)
    return {
        count: sum(median(values) for values in seconds[count].values())
        for count in sorted(seconds)
        if len(seconds[count]) == most
    }


def best_thread_count(seconds: dict[int, float], default: int) -> int:
    """Return the count that took least time; ``default`` if nothing could be measured."""
    return min(seconds, key=lambda count: seconds[count], default=default)
