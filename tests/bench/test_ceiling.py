from __future__ import annotations

import itertools

import pytest

from swiftdiff.bench.ceiling import CPU_SIDES, measure_ceiling


def test_the_ceiling_is_the_operations_of_what_was_multiplied_over_the_time_it_took() -> None:
    seconds = itertools.count()
    ceiling = measure_ceiling("cpu", "float32", seconds=2.5, clock=lambda: float(next(seconds)))
    # By this clock each look takes a second; it looks after one product and after two more.
    assert ceiling.by_side == {side: pytest.approx(2 * side**3 * 3 / 3 / 1e12) for side in CPU_SIDES}
    assert ceiling.tflops == max(ceiling.by_side.values())
    assert (ceiling.device, ceiling.dtype, ceiling.memory_bytes) == ("CPU", "float32", 0)


def test_something_is_multiplied_however_short_the_time_is() -> None:
    assert measure_ceiling("cpu", "bfloat16", seconds=0.0).tflops > 0
