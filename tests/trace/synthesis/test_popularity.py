from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from swiftdiff.trace.synthesis.comparison import hit_rates
from swiftdiff.trace.synthesis.fit_locality import distribution, fit_locality, reuse_distances
from swiftdiff.trace.synthesis.locality import Locality
from swiftdiff.trace.synthesis.streams import stream
from swiftdiff.trace.synthesis.zipf import Zipf


def picked(law: Zipf | Locality, number: int, count: int = 1, seed: int = 0) -> list[list[str]]:
    picker = law.picker(stream(seed, "test"))
    return [picker.pick(count) for _ in range(number)]


def names(requests: list[list[str]]) -> list[str]:
    return [name for request in requests for name in request]


def test_zipf_uses_fall_with_the_rank() -> None:
    counts = Counter(names(picked(Zipf(ids=("a", "b", "c"), exponent=1.0), 20_000)))
    shares = [counts[name] / 20_000 for name in "abc"]
    assert shares == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.015)


def test_a_request_never_names_an_adapter_twice_even_when_it_wants_all_of_them() -> None:
    for exponent in (0.0, 1.0, 10.0):
        for request in picked(Zipf(ids=tuple("abcdefgh"), exponent=exponent), 200, count=8):
            assert sorted(request) == list("abcdefgh")
    locality = Locality(distances=(1, 4), weights=(0.6, 0.35, 0.05))
    for request in picked(locality, 2000, count=3):
        assert len(set(request)) == 3


def test_the_second_adapter_of_a_request_is_drawn_in_proportion_too() -> None:
    zipf = Zipf(ids=("a", "b", "c"), exponent=1.0)
    counts = Counter(tuple(request) for request in picked(zipf, 20_000, count=2))
    assert counts["a", "b"] / 20_000 == pytest.approx(6 / 11 * 3 / 5, abs=0.015)


def test_churn_brings_new_adapters_and_old_ones_fade() -> None:
    used = names(picked(Zipf(count=20, churn_per_1000_uses=50.0), 5000))
    assert len(set(used)) == pytest.approx(20 + 250, rel=0.25)
    assert not set(used[:500]) & set(used[-500:])
    assert len(set(names(picked(Zipf(count=20), 5000)))) == 20


def test_uses_fall_into_the_bands_of_reuse_distances_as_their_weights_say() -> None:
    locality = Locality(distances=(1, 2, 5, 20), weights=(0.4, 0.2, 0.2, 0.15, 0.05), popularity=0.0)
    rates = hit_rates(tuple(map(tuple, picked(locality, 20_000))), 50)
    assert rates[[0, 1, 4, 19]] == pytest.approx([0.4, 0.6, 0.8, 0.95], abs=0.02)
    assert rates[49] == pytest.approx(0.95, abs=0.02)


def test_popularity_gathers_the_uses_on_fewer_adapters() -> None:
    def top_ten(power: float) -> float:
        law = Locality(distances=(1, 10, 100), weights=(0.2, 0.4, 0.35, 0.05), popularity=power)
        counts = Counter(names(picked(law, 5000))).most_common(10)
        return sum(count for _, count in counts) / 5000

    assert top_ten(1.0) > 2 * top_ten(0.0)


def test_adapters_out_of_every_distances_reach_are_forgotten() -> None:
    picker = Locality(distances=(1, 30), weights=(0.3, 0.2, 0.5)).picker(stream(0, "test"))
    for _ in range(3000):
        picker.pick(2)
    assert len(picker._recent) == len(picker._uses) <= 32


def test_reuse_distances_leave_out_what_the_request_has_named() -> None:
    distances, known = reuse_distances((("a",), ("b", "a"), ("b", "c"), ("c",)))
    assert distances.tolist() == [0, 0, 1, 2, 0, 1]
    assert known.tolist() == [0, 1, 1, 2, 1, 3]


def test_a_new_adapter_counts_as_a_distance_beyond_the_list() -> None:
    distances, known = np.array([0, 1, 0, 1, 2]), np.array([0, 1, 1, 2, 2])
    # at risk of 1: all but the first; of 2: one that saw a list of two
    assert distribution(distances, known) == pytest.approx([0, 0.5, 1.0])


def test_a_fit_gives_back_hit_rates_and_popularity_of_what_it_saw() -> None:
    law = Locality(distances=(1, 2, 5, 20, 90), weights=(0.35, 0.2, 0.2, 0.1, 0.1, 0.05), popularity=1.0)
    seen = tuple(map(tuple, picked(law, 4000, seed=1)))
    fitted = fit_locality(seen, "lora-")
    assert fitted is not None
    made = tuple(map(tuple, picked(fitted, 4000, seed=2)))
    assert np.abs(hit_rates(made) - hit_rates(seen)).max() < 0.03


def test_adapters_that_are_each_used_once_fit_no_reuse() -> None:
    assert fit_locality((("a",), ("b",), ()), "lora-") is None
