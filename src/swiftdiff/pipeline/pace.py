"""Keeps the thread that serves one step ahead of a GPU: it has work at any time, and never a heap of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

_STEPS_AHEAD = 1


class Moment(Protocol):
    """A point in what a device has to do, such as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...


class Pace:
    """Lets one request's steps be queued while the device computes those before.

    Were each step waited for, the device would idle while the next is queued. Without any wait all steps
    would be queued in moments: what lanes hand to each other would take memory once for every step, and a
    LoRA that arrives meanwhile would find no step left to act in.

    Args:
        mark: Returns the moment at which the device will have done what is queued now.
    """

    def __init__(self, mark: Callable[[], Moment]) -> None:
        self._mark = mark
        self._ends: deque[Moment] = deque()

    @classmethod
    def on(cls, device: torch.device) -> Pace | None:
        """Return the pace for work that the calling thread's stream waits for; None on the CPU."""
        if device.type != "cuda":
            return None
        return cls(lambda: torch.cuda.current_stream(device).record_event())

    def end_step(self) -> None:
        """Note that a step is queued, and wait until no more than that one is under way."""
        self._ends.append(self._mark())
        if len(self._ends) > _STEPS_AHEAD:
            self._ends.popleft().synchronize()
