"""Decides whether the machine is idle: what others use while something is measured."""

from __future__ import annotations

import os
import time

import psutil

MAX_IDLE_LOAD = 0.3  # load average of a machine on which nothing but daemons runs
MAX_OTHER_SHARE = 0.05  # cores busy with other processes, from which on a measurement is doubtful


def load_1min() -> float:
    """Return the load average over the last minute; 0 where there is none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


class CpuWatch:
    """Tells how much CPU time other processes used since it was made; idle workers use none."""

    def __init__(self) -> None:
        self._machine_s = _busy_s()
        self._own_s = time.process_time()

    def other_s(self, worker_s: float) -> float:
        """Return CPU seconds of others, the hypervisor's steal included.

        Args:
            worker_s: CPU seconds of the worker that computed meanwhile.
        """
        own_s = time.process_time() - self._own_s
        return max(0.0, _busy_s() - self._machine_s - own_s - worker_s)


def _busy_s() -> float:
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq", "steal")  # Linux counts guests in user
    return float(sum(getattr(times, name, 0.0) for name in names))
