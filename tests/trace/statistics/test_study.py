from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_requests import request, requests_at, with_loras

from swiftdiff.errors import TraceError
from swiftdiff.trace.statistics import AdapterStatistics, study_trace
from swiftdiff.trace.statistics.arrivals import describe_arrivals
from swiftdiff.trace.statistics.bins import MAX_BINS, Bins


def loras_of(*ids: str, every_s: float = 1) -> AdapterStatistics:
    loras = study_trace(with_loras(ids, every_s)).loras
    assert loras is not None
    return loras


def test_a_trace_without_requests_is_refused_by_its_name() -> None:
    with pytest.raises(TraceError, match=r"t\.jsonl: the trace holds no requests"):
        study_trace([], "t.jsonl")


def test_one_request_has_no_gaps_and_no_rate() -> None:
    arrivals = study_trace(requests_at(5)).arrivals
    assert (arrivals.num_requests, arrivals.span_s, arrivals.first_s) == (1, 0, 5)
    assert arrivals.rate_per_s is arrivals.gap_cv is arrivals.gap_percentiles_s is None
    assert arrivals.counts == (1,)


def test_even_arrivals_have_no_variation_at_any_window() -> None:
    arrivals = describe_arrivals(np.arange(2000) * 0.5)
    assert arrivals.rate_per_s == 2
    assert arrivals.gap_cv == 0
    assert [(each.window_s, each.index) for each in arrivals.dispersion] == [(1, 0), (10, 0), (60, 0)]


def test_random_arrivals_have_variation_one() -> None:
    moments = np.sort(np.random.default_rng(0).uniform(0, 50000, 100_000))
    arrivals = describe_arrivals(moments)
    assert arrivals.gap_cv == pytest.approx(1, abs=0.02)
    assert [each.index for each in arrivals.dispersion] == pytest.approx([1, 1, 1, 1, 1], abs=1.5)
    assert arrivals.dispersion[0].index == pytest.approx(1, abs=0.02)


def test_bursts_have_variation_above_one() -> None:
    arrivals = describe_arrivals(np.repeat(np.arange(100) * 10.0, 10))
    assert arrivals.gap_cv == pytest.approx(math.sqrt(9.0), rel=0.02)
    assert arrivals.dispersion[0].index == pytest.approx(9, abs=0.2)


def test_dispersion_counts_empty_windows_without_holding_them() -> None:
    arrivals = describe_arrivals(np.array([0.0, 1e15]))
    assert arrivals.dispersion[0].windows == 10**15
    assert arrivals.dispersion[0].index == pytest.approx(1)


def test_arrivals_as_late_as_numbers_go_are_described() -> None:
    arrivals = study_trace(requests_at(0, 1.0, 1e304)).arrivals
    assert sum(arrivals.counts) == 3
    assert arrivals.gap_cv is not None
    assert math.isfinite(arrivals.gap_cv)


@given(st.lists(st.floats(min_value=0, max_value=1e12), min_size=1, max_size=30))
def test_every_arrival_falls_into_one_of_a_bounded_number_of_bins(moments: list[float]) -> None:
    arrivals_s = np.sort(np.array(moments))
    bins = Bins.over(arrivals_s)
    assert bins.count <= MAX_BINS + 2
    assert sum(bins.tally(arrivals_s)) == len(moments)
    assert bins.start_s <= arrivals_s[0]


def test_adapters_per_request_are_counted_by_kind() -> None:
    counts = study_trace(
        [
            request("a"),
            request("b", loras=["x", "y"], controlnets=["e"]),
            request("c", loras=["x"]),
            request("d", controlnets=["e", "e"]),
        ]
    ).adapter_counts
    assert counts.loras == (2, 1, 1)
    assert counts.controlnets == (2, 2)  # an id that a request names twice is one use
    assert counts.both == 1


def test_a_trace_without_adapters_has_arrivals_only() -> None:
    statistics = study_trace(requests_at(0, 1))
    assert statistics.loras is statistics.controlnets is None
    assert statistics.adapter_counts.loras == (2,)


def test_popularity_ranks_ids_by_their_uses() -> None:
    popularity = loras_of("a", "b", "a", "c", "a", "b").popularity
    assert popularity.uses == (3, 2, 1)
    assert popularity.share_of_top(1) == 0.5
    assert [popularity.ids_for_share(share) for share in (0.5, 0.51, 0.9)] == [1, 2, 3]


def test_reuse_is_measured_in_other_adapters_and_in_time() -> None:
    loras = loras_of("a", "b", "c", "b", "a", every_s=10)
    assert loras.reuse_distance == {"p10": 1, "p50": 1, "p90": 2, "p99": 2}
    assert loras.reuse_time_s == {"p10": 20, "p50": 20, "p90": 40, "p99": 40}


def test_ids_that_are_never_used_again_have_no_reuse() -> None:
    loras = loras_of("a", "b")
    assert loras.reuse_distance is loras.reuse_time_s is None
    assert loras.rates(0) == (0, None)
    assert loras.lru.hits == loras.lfu.hits == (0, 0)


def test_hit_rates_are_given_with_and_without_first_uses() -> None:
    loras = loras_of("a", "b", "a", "b", "a")
    assert (loras.lru.sizes, loras.lru.hits) == ((1, 2), (0, 3))
    assert loras.rates(3) == (0.6, 1.0)
    assert loras.lru.hits_at(100) == 3


def test_churn_tells_new_ids_over_time_and_how_long_ids_live() -> None:
    loras = loras_of("a", "b", "a", "a", "c", "d", "d", "a", "e")
    churn = loras.churn
    assert [at for at, new in enumerate(churn.new_ids) if new] == [0, 10, 40, 50, 80]  # tenths of a second
    assert sum(churn.uses) == 9
    assert churn.new_share == 5 / 9
    assert churn.new_share_second_half == 2 / 4  # of d, d, a and e, after the middle at 4 s
    assert churn.single_use_share == 3 / 5
    assert churn.half_life_s == 0  # of a, b and c, which come in the first half
    assert churn.half_life_reused_s == 7  # of a
    assert churn.median_age_s == 0


def test_kinds_of_adapters_do_not_mix() -> None:
    statistics = study_trace(
        [request("a", loras=["x"], controlnets=["x"]), request("b", 1, controlnets=["x"])]
    )
    assert statistics.loras is not None
    assert statistics.controlnets is not None
    assert (statistics.loras.num_uses, statistics.controlnets.num_uses) == (1, 2)
    assert list(statistics.kinds) == ["LoRAs", "ControlNets"]
