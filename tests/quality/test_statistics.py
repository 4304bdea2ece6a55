"""Intervals must agree with the textbook's, and stay sensible at the ends."""

from __future__ import annotations

import pytest

from swiftdiff.quality.statistics import mean_of, wilson_share


def test_wilsons_interval_agrees_with_the_published_example() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    estimate = wilson_share(81, 263)
    assert (estimate.low, estimate.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


@pytest.mark.parametrize(("right", "count"), [(0, 20), (20, 20), (0, 0), (1, 1)])
def test_intervals_stay_between_zero_and_one_and_hold_the_share(right: int, count: int) -> None:
    estimate = wilson_share(right, count)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_mean_of_equal_values_has_no_spread() -> None:
    estimate = mean_of([0.5] * 9)
    assert (estimate.low, estimate.value, estimate.high) == (0.5, 0.5, 0.5)
    assert mean_of([]).count == 0
