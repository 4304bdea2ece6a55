"""Describes how a trace's adapters change over time: how many are new, and how long they stay in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swiftdiff.trace.statistics.bins import Bins
from swiftdiff.trace.statistics.lru import Longs
from swiftdiff.trace.statistics.uses import AdapterUses, Floats


@dataclass(frozen=True)
class Churn:
    """How adapters come and go.

    An adapter's life is the time from its first use in the trace to its last, 0 if it has one use. Medians of
    lives are half-lives: by then half of the adapters are no longer used. They are taken over the adapters
    that come in the first half of the trace, since of later ones less can be seen.

    Attributes:
        new_ids: Adapters used for the first time, in each bin of the trace's arrivals.
        uses: Uses in each bin.
        new_share: Share of all uses that are an adapter's first.
        new_share_second_half: The same of the uses in the second half of the trace's time, None without any:
            there a cold start is over.
        single_use_share: Share of the adapters that are used once.
        half_life_s: Median life, None without any.
        half_life_reused_s: Median life of those used more than once, None without any.
        median_age_s: Median, over uses, of the time since the adapter's first use.
    """

    new_ids: tuple[int, ...]
    uses: tuple[int, ...]
    new_share: float
    new_share_second_half: float | None
    single_use_share: float
    half_life_s: float | None
    half_life_reused_s: float | None
    median_age_s: float


def describe_churn(uses: AdapterUses, previous: Longs, arrivals_s: Floats, bins: Bins) -> Churn:
    """Return how the adapters change.

    Args:
        uses: At least one.
        previous: What `lru.previous_uses` returns for them.
        arrivals_s: Arrival of each request.
        bins: Those of the trace's arrivals.
    """
    moments_s = arrivals_s[uses.requests]
    is_first = previous < 0
    first_s = moments_s[is_first]  # adapters are numbered in order of first use
    last_s = np.empty(uses.num_ids)
    last_s[uses.adapters] = moments_s  # of several uses of one adapter the last is kept
    middle_s = float(arrivals_s[0] + arrivals_s[-1]) / 2
    lives_s = (last_s - first_s)[first_s <= middle_s]
    is_late = moments_s > middle_s
    counts = np.bincount(uses.adapters)
    reused = counts[: len(lives_s)] > 1
    return Churn(
        new_ids=bins.tally(first_s),
        uses=bins.tally(moments_s),
        new_share=float(np.mean(is_first)),
        new_share_second_half=float(np.mean(is_first[is_late])) if is_late.any() else None,
        single_use_share=float(np.mean(counts == 1)),
        half_life_s=_median(lives_s),
        half_life_reused_s=_median(lives_s[reused]),
        median_age_s=float(np.median(moments_s - first_s[uses.adapters])),
    )


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None
