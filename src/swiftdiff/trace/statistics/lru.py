"""Finds the hits of a least-recently-used cache of every size at once, from stack distances.

A least-recently-used cache that holds C adapters holds the C last used ones, whatever C is. So a use hits in
every cache larger than its stack distance: the number of different adapters used since the same adapter's
last use (Mattson, Gecsei, Slutz and Traiger, Evaluation techniques for storage hierarchies, 1970). Whether a
request's adapters are held together makes no difference here: they are the last used ones anyway.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swiftdiff.trace.statistics.uses import Ints

Longs = NDArray[np.int64]


def previous_uses(adapters: Ints) -> Longs:
    """Return for each use the place of the same adapter's last use before it, or -1 if it is the first."""
    order = np.argsort(adapters, kind="stable")
    ordered = adapters[order]
    is_repeat = ordered[1:] == ordered[:-1]
    previous = np.full(len(adapters), -1, dtype=np.int64)
    previous[order[1:][is_repeat]] = order[:-1][is_repeat]
    return previous


def stack_distances(previous: Longs) -> Longs:
    """Return, for each use that is not its adapter's first, how many other adapters lie between the two.

    Of the uses between a use and its previous one, those count that are the first of their adapter there.
    The others are exactly the earlier uses whose own previous use is later than this one's, which makes it a
    count of inversions: no tree, log2(uses) passes over arrays.

    Args:
        previous: What `previous_uses` returns.
    """
    places = np.flatnonzero(previous >= 0)
    last = previous[places]
    return places - last - 1 - _greater_before(last)


def lru_hits(distances: Longs, num_ids: int) -> Longs:
    """Return the hits in caches of 1, 2, ... ``num_ids`` adapters."""
    return np.cumsum(np.bincount(distances, minlength=num_ids))


def _greater_before(values: Longs) -> Longs:
    """Return for each of different values how many before it are greater.

    Two values compare by the highest bit in which their ranks differ. So for each bit, highest first, among
    the ranks that share all higher bits, in their order: a rank with a 0 has the 1s before it as greater.
    """
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    greater = np.zeros(len(values), dtype=np.int64)  # by rank
    places = np.arange(len(values))
    current = ranks.copy()
    for bit in reversed(range(len(values).bit_length())):
        is_one = (current >> bit) & 1
        ones_before = np.cumsum(is_one) - is_one
        # Ranks are all numbers from 0, so a group begins at the place that is its lowest rank.
        start = current >> (bit + 1) << (bit + 1)
        ones_before -= ones_before[start]
        is_zero = is_one == 0
        greater[current[is_zero]] += ones_before[is_zero]
        new_place = np.where(is_zero, places - ones_before, start + (1 << bit) + ones_before)
        following = np.empty_like(current)
        following[new_place] = current
        current = following
    return greater[ranks]
