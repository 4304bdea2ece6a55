from __future__ import annotations

import pytest

from swiftdiff.compare.rate_search import RateSearch


def search(capacity: float, first: float = 1.0, precision: float = 0.05, max_probes: int = 40) -> RateSearch:
    found = RateSearch(first, precision, max_probes)
    while (rate := found.next_rate()) is not None:
        found.note(rate, held=rate <= capacity)
    return found


@pytest.mark.parametrize("capacity", [0.013, 0.4, 1.0, 1.7, 250.0])
def test_it_ends_within_its_precision_wherever_it_begins(capacity: float) -> None:
    for first in (0.05, 1.0, 30.0):
        found = search(capacity, first)
        assert found.highest_held is not None
        assert found.lowest_failed is not None
        assert found.highest_held <= capacity < found.lowest_failed
        assert found.lowest_failed <= found.highest_held * 1.0501


def test_it_stops_after_so_many_probes() -> None:
    assert len(search(1e9, max_probes=5).tried) == 5
    never = search(0.0, max_probes=4)
    assert (len(never.tried), never.highest_held) == (4, None)


def test_it_tries_no_rate_twice_however_precise() -> None:
    found = search(1.234, precision=1e-9)
    assert len(found.tried) < 40
    assert found.lowest_failed == pytest.approx(1.24)


def test_a_rate_that_held_above_one_that_failed_was_luck() -> None:
    found = RateSearch(1.0, 0.05, 10, tried={1.0: True, 2.0: False, 3.0: True})
    assert found.highest_held == 1.0
    assert found.next_rate() == 1.41
