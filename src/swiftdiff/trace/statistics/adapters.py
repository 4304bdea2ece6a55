"""Describes how one kind of adapter is used: popularity, reuse, churn, and what caches would hold of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from swiftdiff.trace.statistics.arrivals import percentiles
from swiftdiff.trace.statistics.bins import Bins
from swiftdiff.trace.statistics.churn import Churn, describe_churn
from swiftdiff.trace.statistics.lfu import lfu_hits, lfu_sizes
from swiftdiff.trace.statistics.lru import lru_hits, previous_uses, stack_distances
from swiftdiff.trace.statistics.uses import AdapterUses, Floats


@dataclass(frozen=True)
class Popularity:
    """How uses fall on adapters.

    Attributes:
        uses: Uses of each adapter, most used first.
    """

    uses: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        """All uses."""
        return sum(self.uses)

    def share_of_top(self, count: int) -> float:
        """Return the share of the uses that fall on the ``count`` most used adapters."""
        return sum(self.uses[:count]) / self.total

    def ids_for_share(self, share: float) -> int:
        """Return how few adapters have at least that share of the uses."""
        return int(np.searchsorted(np.cumsum(self.uses), share * self.total)) + 1


@dataclass(frozen=True)
class HitCurve:
    """Hits of a cache that starts empty, by the number of adapters that it holds.

    Attributes:
        sizes: Rising; the last holds all adapters.
        hits: Uses that find their adapter there.
    """

    sizes: tuple[int, ...]
    hits: tuple[int, ...]

    def hits_at(self, size: int) -> int | None:
        """Return the hits at a size, None if it is not among ``sizes``; above the last they stay the same."""
        size = min(size, self.sizes[-1])
        index = int(np.searchsorted(self.sizes, size))
        return self.hits[index] if self.sizes[index] == size else None


@dataclass(frozen=True)
class AdapterStatistics:
    """How the LoRAs, or the ControlNets, of a trace are used. There is at least one use.

    Attributes:
        num_ids: Different adapters.
        num_uses: Uses; see `uses.AdapterUses`.
        popularity: How uses fall on adapters.
        reuse_distance: Percentiles of how many other adapters are used between two uses of one; None if none
            is used twice.
        reuse_time_s: Percentiles of the time between two uses of one, likewise.
        churn: How adapters come and go.
        lru: Hits of a least-recently-used cache of every size.
        lfu: Hits of a least-often-used cache; see `lfu`.
    """

    num_ids: int
    num_uses: int
    popularity: Popularity
    reuse_distance: dict[str, int] | None
    reuse_time_s: dict[str, float] | None
    churn: Churn
    lru: HitCurve
    lfu: HitCurve

    @property
    def num_reuses(self) -> int:
        """Uses that are not an adapter's first: the most that any cache can hit."""
        return self.num_uses - self.num_ids

    def rates(self, hits: int) -> tuple[float, float | None]:
        """Return hits as a share of all uses, and of those that are not an adapter's first (None if none)."""
        return hits / self.num_uses, hits / self.num_reuses if self.num_reuses else None


def describe_adapters(uses: AdapterUses, arrivals_s: Floats, bins: Bins) -> AdapterStatistics | None:
    """Return how one kind of adapter is used, or None if it is not."""
    if not uses.num_ids:
        return None
    previous = previous_uses(uses.adapters)
    distances = stack_distances(previous)
    is_reuse = previous >= 0
    moments_s = arrivals_s[uses.requests]
    counts = np.sort(np.bincount(uses.adapters))[::-1]
    sizes = lfu_sizes(uses.num_ids)
    return AdapterStatistics(
        num_ids=uses.num_ids,
        num_uses=len(uses.adapters),
        popularity=Popularity(tuple(counts.tolist())),
        reuse_distance=percentiles(distances),
        reuse_time_s=percentiles(moments_s[is_reuse] - moments_s[previous[is_reuse]]),
        churn=describe_churn(uses, previous, arrivals_s, bins),
        lru=HitCurve(tuple(range(1, uses.num_ids + 1)), tuple(lru_hits(distances, uses.num_ids).tolist())),
        lfu=HitCurve(sizes, tuple(lfu_hits(uses, size) for size in sizes)),
    )
