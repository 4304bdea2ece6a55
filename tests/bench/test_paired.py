from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.bench.order import interleave, take_turns
from swiftdiff.bench.paired import MIN_FOR_BOOTSTRAP, pair_ratios, spread_of


@given(st.integers(1, 7))
def test_over_all_turns_each_is_at_each_place_equally_often(count: int) -> None:
    items = list(range(count))
    turns = [take_turns(items, turn) for turn in range(2 * count)]
    for turn in turns:
        assert sorted(turn) == items
    for place in range(count):
        assert sorted(turn[place] for turn in turns) == sorted(items * 2)


def test_every_other_turn_goes_backwards_so_that_none_always_follows_the_same() -> None:
    turns = [take_turns("abc", turn) for turn in range(6)]
    assert [turn.index("a") < turn.index("b") for turn in turns].count(True) == 3


def test_all_cases_are_in_each_round_and_who_begins_changes_within_a_case() -> None:
    rounds = list(interleave(4, ["x", "y", "z"]))
    assert [case for _, _, case in rounds] == ["x", "y", "z"] * 4
    assert [turn for _, turn, case in rounds if case == "y"] == [1, 2, 3, 4]


def test_ratios_are_taken_within_pairs_and_only_where_both_were_measured() -> None:
    ratios = pair_ratios({0: 10.0, 1: 30.0, 2: 5.0}, {1: 10.0, 0: 5.0, 7: 1.0})
    assert ratios == [2.0, 3.0]


def test_few_values_are_told_by_their_range() -> None:
    spread = spread_of([3.0, 1.0, 2.0, 9.0, 2.5])
    assert spread is not None
    assert (spread.median, spread.low, spread.high, spread.count) == (2.5, 1.0, 9.0, 5)
    assert spread.method == "range"
    assert spread_of([]) is None


def test_many_values_get_a_bootstrap_interval_that_is_the_same_each_time() -> None:
    values = list(np.random.default_rng(1).normal(2.0, 0.1, 40))
    first, second = spread_of(values), spread_of(values)
    assert first == second
    assert first is not None
    assert first.method == "bootstrap95"
    assert min(values) < first.low < first.median < first.high < max(values)
    assert first.high - first.low < 0.15


def test_the_bootstrap_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(100):
        spread = spread_of(list(rng.lognormal(0.0, 0.3, 25)))
        assert spread is not None
        held += spread.low <= 1.0 <= spread.high
    assert held >= 86


@pytest.mark.parametrize("count", [MIN_FOR_BOOTSTRAP - 1, MIN_FOR_BOOTSTRAP])
def test_equal_values_have_no_spread(count: int) -> None:
    spread = spread_of([2.0] * count)
    assert spread is not None
    assert (spread.low, spread.median, spread.high) == (2.0, 2.0, 2.0)
