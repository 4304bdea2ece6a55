from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.adapters.residency import AdapterCache, EvictionPolicy


def test_the_least_recently_used_goes_first() -> None:
    cache: AdapterCache[str] = AdapterCache(20)
    cache.put("a", "A", 10)
    cache.put("b", "B", 10)
    assert cache.pin("a") == "A"
    cache.unpin("a")
    cache.put("c", "C", 10)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert (cache.stats.hits, cache.stats.misses, cache.stats.evictions) == (1, 0, 1)


def test_the_least_often_used_goes_first_if_wished() -> None:
    cache: AdapterCache[str] = AdapterCache(20, "lfu")
    cache.put("often", "O", 10)
    for _ in range(3):
        cache.pin("often")
        cache.unpin("often")
    for name in ("b", "c", "d"):
        assert cache.pin(name) is None
        cache.put(name, name, 10)
    assert ("often" in cache, "b" in cache, "c" in cache, "d" in cache) == (True, False, False, True)


def test_what_is_in_use_stays_over_the_budget_and_goes_when_it_is_given_back() -> None:
    cache: AdapterCache[str] = AdapterCache(5)
    cache.put("big", "B", 50, pins=2)
    cache.put("other", "O", 5)
    assert "big" in cache
    assert "other" not in cache
    cache.unpin("big")
    assert "big" in cache
    cache.unpin("big")
    assert "big" not in cache
    assert (cache.stats.used_bytes, cache.stats.peak_bytes) == (0, 55)


def test_misuse_is_an_error() -> None:
    cache: AdapterCache[str] = AdapterCache(None)
    cache.put("a", "A", 1)
    with pytest.raises(ValueError, match="is not pinned"):
        cache.unpin("a")
    with pytest.raises(ValueError, match="in the cache already"):
        cache.put("a", "A", 1)


@given(
    st.sampled_from(["lru", "lfu"]),
    st.integers(0, 30),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(1, 12)), max_size=40),
)
def test_only_pinned_adapters_ever_exceed_the_budget(
    policy: EvictionPolicy, budget: int, events: list[tuple[str, bool, int]]
) -> None:
    cache: AdapterCache[str] = AdapterCache(budget, policy)
    sizes: dict[str, int] = {}
    pins: dict[str, int] = {}
    for name, give_back, size in events:
        if give_back and pins.get(name):
            cache.unpin(name)
            pins[name] -= 1
        elif cache.pin(name) is not None:
            pins[name] = pins.get(name, 0) + 1
        else:
            cache.put(name, name, size, pins=1)
            sizes[name], pins[name] = size, 1
        assert all(name in cache for name, count in pins.items() if count)
        pinned = sum(sizes[name] for name, count in pins.items() if count)
        assert cache.stats.used_bytes == sum(sizes[name] for name in sizes if name in cache)
        assert cache.stats.used_bytes <= max(budget, pinned)
