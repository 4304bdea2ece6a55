"""Intervals must agree with the textbook's, and stay sensible at the ends."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.quality.statistics import bootstrap_mean, bootstrap_ratio, mean_of, wilson_share


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


def test_a_bootstrap_of_the_same_values_is_the_same() -> None:
    values = np.random.default_rng(1).normal(3, 1, 40).tolist()
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


@pytest.mark.parametrize("size", [4, 8, 40])
def test_bootstrap_intervals_of_few_and_many_values_hold_the_mean_as_often_as_they_say(size: int) -> None:
    rng = np.random.default_rng(2)
    held = []
    for seed in range(300):
        found = bootstrap_mean(rng.normal(2.0, 1.0, size).tolist(), seed)
        held.append(found.low <= 2.0 <= found.high)
    assert 0.84 <= np.mean(held) <= 0.98  # a plain percentile bootstrap of 4 values reaches 0.78


def test_pictures_of_one_request_count_as_one_draw() -> None:
    values = [0.0] * 10 + [1.0] * 10 + [0.0] * 10 + [1.0] * 10
    requests = [index // 10 for index in range(40)]
    alone, grouped = bootstrap_mean(values), bootstrap_mean(values, groups=requests)
    assert grouped.value == alone.value == 0.5
    assert grouped.count == 40
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_a_ratio_is_paired_by_request() -> None:
    """Requests differ a hundredfold, and every one of them is exactly twice as fast."""
    other = np.geomspace(0.1, 10, 20)
    found = bootstrap_ratio(2 * other, other)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_the_spread_between_repeats_widens_a_ratio() -> None:
    rng = np.random.default_rng(3)
    requests = rng.uniform(1, 2, (30, 1))
    moods = np.array([1.0, 1.3, 0.8, 1.1, 0.9])
    calm = bootstrap_ratio(2 * requests.repeat(5, 1), requests.repeat(5, 1))
    moody = bootstrap_ratio(2 * requests * moods, requests.repeat(5, 1))
    assert calm is not None
    assert moody is not None
    assert calm.high - calm.low < 1e-9
    assert moody.high - moody.low > 0.2


def test_what_either_did_not_serve_does_not_count() -> None:
    found = bootstrap_ratio([4.0, np.nan, 100.0, 4.0], [2.0, 1.0, np.nan, 2.0])
    assert found is not None
    assert (found.value, found.count) == (2.0, 2)


def test_nothing_to_divide_by_is_no_ratio() -> None:
    assert bootstrap_ratio([], []) is None
    assert bootstrap_ratio([1.0], [np.nan]) is None
    assert bootstrap_ratio([1.0], [0.0]) is None


def test_one_value_has_no_spread() -> None:
    assert bootstrap_mean([0.25]).as_dict() == {"value": 0.25, "low": 0.25, "high": 0.25, "count": 1}
