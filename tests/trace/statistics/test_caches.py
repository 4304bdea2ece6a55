from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.adapters.residency import AdapterCache, EvictionPolicy
from swiftdiff.trace.statistics.lfu import lfu_hits, lfu_sizes
from swiftdiff.trace.statistics.lru import lru_hits, previous_uses, stack_distances
from swiftdiff.trace.statistics.uses import AdapterUses, Ints

IDS = 9
USES = st.lists(st.integers(0, IDS - 1), max_size=80)
REQUESTS = st.lists(st.lists(st.integers(0, IDS - 1), min_size=1, max_size=4, unique=True), max_size=50)


def ints(uses: Sequence[int]) -> Ints:
    return np.array(uses, dtype=np.int32)


def uses_of(requests: Sequence[Sequence[int]], num_ids: int = IDS) -> AdapterUses:
    numbers = [number for number, adapters in enumerate(requests) for _ in adapters]
    return AdapterUses(num_ids, ints([one for adapters in requests for one in adapters]), ints(numbers))


def hits_of_the_real_cache(requests: Sequence[Sequence[int]], size: int, policy: EvictionPolicy) -> int:
    cache: AdapterCache[str] = AdapterCache(size, policy)
    for adapters in requests:
        for name in map(str, adapters):
            if cache.pin(name) is None:
                cache.put(name, name, num_bytes=1, pins=1)
        for name in map(str, adapters):
            cache.unpin(name)
    return cache.stats.hits


def brute_force_lru_hits(uses: Sequence[int], size: int) -> int:
    held: list[int] = []
    hits = 0
    for adapter in uses:
        if adapter in held:
            hits += 1
            held.remove(adapter)
        held = [*held, adapter][-size:]
    return hits


def brute_force_lfu_hits(uses: Sequence[int], size: int) -> int:
    """Of requests with one adapter each."""
    held: dict[int, tuple[int, int]] = {}
    hits = 0
    for moment, adapter in enumerate(uses):
        if adapter in held:
            hits += 1
        elif len(held) == size:
            del held[min(held, key=lambda one: held[one])]
        held[adapter] = (held.get(adapter, (0, 0))[0] + 1, moment)
    return hits


@given(USES)
def test_a_stack_distance_counts_the_other_adapters_used_in_between(uses: list[int]) -> None:
    expected = []
    for place, adapter in enumerate(uses):
        if adapter in uses[:place]:
            last = max(at for at in range(place) if uses[at] == adapter)
            expected.append(len(set(uses[last + 1 : place])))
    assert stack_distances(previous_uses(ints(uses))).tolist() == expected


@given(REQUESTS)
def test_lru_hits_are_those_of_a_cache_of_each_size(requests: list[list[int]]) -> None:
    uses = uses_of(requests).adapters
    hits = lru_hits(stack_distances(previous_uses(uses)), IDS).tolist()
    assert hits == [brute_force_lru_hits(uses.tolist(), size) for size in range(1, IDS + 1)]
    assert hits == [hits_of_the_real_cache(requests, size, "lru") for size in range(1, IDS + 1)]


@given(REQUESTS, st.integers(1, IDS + 1))
def test_lfu_hits_are_those_of_a_cache_of_that_size(requests: list[list[int]], size: int) -> None:
    assert lfu_hits(uses_of(requests), size) == hits_of_the_real_cache(requests, size, "lfu")


@given(USES, st.integers(1, IDS + 1))
def test_lfu_puts_out_the_least_often_used(uses: list[int], size: int) -> None:
    assert lfu_hits(uses_of([[adapter] for adapter in uses]), size) == brute_force_lfu_hits(uses, size)


@pytest.mark.parametrize("num_ids", [5, 400])
def test_long_traces_agree_with_the_real_cache_too(num_ids: int) -> None:
    generator = np.random.default_rng(0)
    requests = [
        list(dict.fromkeys((generator.zipf(1.3, count) % num_ids).tolist()))
        for count in generator.integers(1, 6, 3000)
    ]
    uses = uses_of(requests, num_ids)
    lru = lru_hits(stack_distances(previous_uses(uses.adapters)), num_ids)
    for size in (1, 2, 3, 50, num_ids):
        assert lru[min(size, num_ids) - 1] == hits_of_the_real_cache(requests, size, "lru")
        assert lfu_hits(uses, size) == hits_of_the_real_cache(requests, size, "lfu")


def test_counts_of_lfu_die_with_eviction() -> None:
    uses = [0, 0, 0, 1, 1, 1, 1, 2, 0, 2]  # 0 goes out for 2 and comes back with a count of 1, in place of 2
    assert lfu_hits(uses_of([[adapter] for adapter in uses]), 2) == 5


def test_lfu_does_not_put_out_what_the_same_request_has_just_looked_up() -> None:
    requests = [[0], [0], [1, 2], [1, 2]]
    assert lfu_hits(uses_of(requests), 2) == 3
    assert (
        lfu_hits(uses_of([[0], [0], [1], [2], [1], [2]]), 2) == 1
    )  # one at a time 1 and 2 push each other out


@pytest.mark.parametrize(
    ("num_ids", "sizes"),
    [(1, (1,)), (2, (1, 2)), (12, (1, 2, 3, 5, 7, 10, 12)), (30, (1, 2, 3, 5, 7, 10, 20, 30))],
)
def test_lfu_sizes_end_with_the_one_that_holds_all(num_ids: int, sizes: tuple[int, ...]) -> None:
    assert lfu_sizes(num_ids) == sizes
