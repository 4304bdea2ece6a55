"""Decides which waiting request is served next: a policy is one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swiftdiff.request import LoraUse
from swiftdiff.server.config import PolicyName
from swiftdiff.server.job import Job

#: Takes the waiting jobs, oldest first and at least one, the LoRAs of the last one that was served, and how
#: often a job may be overtaken; returns the index of the next.
Policy = Callable[[Sequence[Job], tuple[LoraUse, ...], int], int]


def fifo(waiting: Sequence[Job], loras: tuple[LoraUse, ...], max_overtakes: int) -> int:
    """First come, first served."""
    return 0


def adapter_affinity(waiting: Sequence[Job], loras: tuple[LoraUse, ...], max_overtakes: int) -> int:
    """The oldest with the LoRAs that are in the weights, unless the oldest of all was overtaken too often."""
    if waiting[0].overtaken >= max_overtakes:
        return 0
    same = (index for index, job in enumerate(waiting) if job.request.loras == loras)
    return next(same, 0)


def earliest_deadline_first(waiting: Sequence[Job], loras: tuple[LoraUse, ...], max_overtakes: int) -> int:
    """The one whose time is up first: without ``slo_ms`` that is the server's timeout, so none starves."""
    return min(range(len(waiting)), key=lambda index: waiting[index].wanted_by_s)


POLICIES: dict[PolicyName, Policy] = {
    "fifo": fifo,
    "adapter-affinity": adapter_affinity,
    "edf": earliest_deadline_first,
}
