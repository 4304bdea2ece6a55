"""Finds the hits of a least-often-used cache of one size, by running it.

The cache is that of `swiftdiff.adapters.residency` with adapters of equal size: out goes who was used least
often since it came in, among equals the one whose last use is longest ago. A request's adapters are looked up
in its order and held until it has all, even beyond the size, and only then let go, before the next request's.
Counts die with eviction, so a larger cache need not hold what a smaller one does and there is no short cut
for all sizes at once, as there is for `lru`: each size is simulated.
"""

from __future__ import annotations

import heapq

from swiftdiff.trace.statistics.uses import AdapterUses


def lfu_hits(uses: AdapterUses, size: int) -> int:
    """Return how many uses find their adapter in a cache that holds ``size`` adapters, at least 1."""
    cache = _Cache(uses.num_ids)
    counts, last_use = cache.counts, cache.last_use
    hits = request_start = 0
    current = -1
    for moment, (adapter, request) in enumerate(zip(uses.adapters.data, uses.requests.data, strict=True)):
        if request != current:
            if (excess := len(cache.ranks) - size) > 0:  # the last request alone had more than fit
                cache.drop(uses.adapters[request_start : request_start + excess].tolist())
            current, request_start = request, moment
        if counts[adapter]:
            hits += 1
            counts[adapter] += 1
            last_use[adapter] = moment
        else:
            if len(cache.ranks) >= size:
                cache.evict(request_start)
            cache.add(adapter, moment)
    return hits


class _Cache:
    """What is held, by number of the adapter.

    Attributes:
        counts: Uses since it came in; 0 is not held.
        last_use: Moment of the last use.
        ranks: A heap with one entry for each adapter held: its rank when it came in, or when it was last
            looked at. Ranks only grow, so a lowest entry that is up to date is the lowest of all, and hits
            leave the heap alone.
    """

    def __init__(self, num_ids: int) -> None:
        self.counts = [0] * num_ids
        self.last_use = [0] * num_ids
        self.ranks: list[tuple[int, int, int]] = []

    def add(self, adapter: int, moment: int) -> None:
        self.counts[adapter] = 1
        self.last_use[adapter] = moment
        heapq.heappush(self.ranks, (1, moment, adapter))

    def evict(self, request_start: int) -> None:
        """Put out the lowest that was not used since a moment, if there is one."""
        held = []
        while self.ranks:
            _, moment, adapter = self.ranks[0]
            now = self.last_use[adapter]
            if now >= request_start:
                held.append(heapq.heappop(self.ranks))
            elif moment != now:
                heapq.heapreplace(self.ranks, (self.counts[adapter], now, adapter))
            else:
                heapq.heappop(self.ranks)
                self.counts[adapter] = 0
                break
        for entry in held:
            heapq.heappush(self.ranks, entry)

    def drop(self, adapters: list[int]) -> None:
        """Put these out."""
        for adapter in adapters:
            self.counts[adapter] = 0
        self.ranks = [entry for entry in self.ranks if self.counts[entry[2]]]
        heapq.heapify(self.ranks)


def lfu_sizes(num_ids: int) -> tuple[int, ...]:
    """Return the sizes that are simulated: 1, 2, 3, 5, 7, 10, 20, ... and last the one that holds all."""
    steps = (digit * 10**power for power in range(len(str(num_ids))) for digit in (1, 2, 3, 5, 7))
    return (*(size for size in steps if size < num_ids), num_ids)
