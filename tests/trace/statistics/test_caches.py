from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.adapters.residency import AdapterCache, EvictionPolicy
from swiftdiff.trace.statistics.lfu import lfu_hits, lfu_sizes
from swiftdiff.trace.statistics.lru import lru_hits, previous_uses, stack_distances
from swiftdiff.trace.statistics.uses import Ints

IDS = 9
USES = st.lists(st.integers(0, IDS - 1), max_size=80)


def ints(uses: Sequence[int]) -> Ints:
    return np.array(uses, dtype=np.int32)


def hits_of_the_real_cache(uses: Sequence[int], size: int, policy: EvictionPolicy) -> int:
    cache: AdapterCache[None] = AdapterCache(size, policy)
    hits = 0
    for adapter in map(str, uses):
        before = cache.stats.hits
        cache.pin(adapter)
        hits += cache.stats.hits - before
        if cache.stats.hits == before:
            cache.put(adapter, None, num_bytes=1, pins=1)
        cache.unpin(adapter)
    return hits


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


@given(USES)
def test_lru_hits_are_those_of_a_cache_of_each_size(uses: list[int]) -> None:
    hits = lru_hits(stack_distances(previous_uses(ints(uses))), IDS).tolist()
    assert hits == [brute_force_lru_hits(uses, size) for size in range(1, IDS + 1)]
    assert hits == [hits_of_the_real_cache(uses, size, "lru") for size in range(1, IDS + 1)]


@given(USES, st.integers(1, IDS + 1))
def test_lfu_hits_are_those_of_a_cache_of_that_size(uses: list[int], size: int) -> None:
    hits = lfu_hits(ints(uses), IDS, size)
    assert hits == brute_force_lfu_hits(uses, size)
    assert hits == hits_of_the_real_cache(uses, size, "lfu")


@pytest.mark.parametrize("num_ids", [3, 400])
def test_long_traces_agree_with_the_real_cache_too(num_ids: int) -> None:
    uses = (np.random.default_rng(0).zipf(1.3, 5000) % num_ids).astype(np.int32)
    lru = lru_hits(stack_distances(previous_uses(uses)), num_ids)
    for size in (1, 2, 50, num_ids):
        assert lru[min(size, num_ids) - 1] == hits_of_the_real_cache(uses.tolist(), size, "lru")
        assert lfu_hits(uses, num_ids, size) == hits_of_the_real_cache(uses.tolist(), size, "lfu")


def test_counts_of_lfu_die_with_eviction() -> None:
    uses = [0, 0, 0, 1, 1, 1, 1, 2, 0, 2]  # 0 goes out for 2 and comes back with a count of 1, in place of 2
    assert lfu_hits(ints(uses), 3, 2) == 5


@pytest.mark.parametrize(
    ("num_ids", "sizes"),
    [(1, (1,)), (2, (1, 2)), (12, (1, 2, 3, 5, 7, 10, 12)), (30, (1, 2, 3, 5, 7, 10, 20, 30))],
)
def test_lfu_sizes_end_with_the_one_that_holds_all(num_ids: int, sizes: tuple[int, ...]) -> None:
    assert lfu_sizes(num_ids) == sizes
