"""Waiting for what must come: a test that passes never waits for long, on however slow a machine."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds that no test takes which passes: a machine may stall for many.
PATIENCE_S = 300.0


def until(condition: Callable[[], object]) -> None:
    """Wait for something that another thread or process brings about."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
