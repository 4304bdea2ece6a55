"""Finds the hits of a least-often-used cache of one size, by running it.

The cache is that of `swiftdiff.adapters.residency` with adapters of equal size: out goes who was used least
often since it came in, among equals the one whose last use is longest ago; the adapter that comes in stays.
Counts die with eviction, so a larger cache need not hold what a smaller one does and there is no short cut
for all sizes at once, as there is for `lru`: each size is simulated.
"""

from __future__ import annotations

import heapq

from swiftdiff.trace.statistics.uses import Ints


def lfu_hits(adapters: Ints, num_ids: int, size: int) -> int:
    """Return how many uses find their adapter in a cache that holds ``size`` adapters.

    Args:
        adapters: The adapter of each use, each from 0 to ``num_ids - 1``.
        num_ids: Number of different adapters.
        size: At least 1.
    """
    uses = [0] * num_ids  # since it came in; 0 is not in the cache
    last_use = [0] * num_ids
    # An entry for each adapter in the cache: its rank when it came in, or when it was last looked at. Ranks
    # only grow, so a lowest entry that is up to date is the lowest of all, and hits leave the heap alone.
    ranks: list[tuple[int, int, int]] = []
    hits = 0
    for moment, adapter in enumerate(adapters.data):
        if uses[adapter]:
            hits += 1
            uses[adapter] += 1
        else:
            uses[adapter] = 1
            if len(ranks) < size:
                heapq.heappush(ranks, (1, moment, adapter))
            else:
                while (lowest := ranks[0])[1] != last_use[lowest[2]]:
                    stale = lowest[2]
                    heapq.heapreplace(ranks, (uses[stale], last_use[stale], stale))
                uses[lowest[2]] = 0
                heapq.heapreplace(ranks, (1, moment, adapter))
        last_use[adapter] = moment
    return hits


def lfu_sizes(num_ids: int) -> tuple[int, ...]:
    """Return the sizes that are simulated: 1, 2, 3, 5, 7, 10, 20, ... and last the one that holds all."""
    steps = (digit * 10**power for power in range(len(str(num_ids))) for digit in (1, 2, 3, 5, 7))
    return (*(size for size in steps if size < num_ids), num_ids)
