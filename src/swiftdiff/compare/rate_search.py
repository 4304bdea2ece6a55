"""Decides which request rate is tried next, to find the highest at which a system holds its SLO."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt


@dataclass
class RateSearch:
    """Doubles or halves a rate until one holds and one does not, then bisects between them, in ratios.

    Attributes:
        rate: First rate to try, in requests a second.
        precision: Ends when the lowest rate that failed is at most so much above the highest that held.
        max_probes: Ends after so many rates at the latest.
        tried: Rates in the order in which they were tried, and whether each held.
    """

    rate: float
    precision: float
    max_probes: int
    tried: dict[float, bool] = field(default_factory=dict)

    @property
    def highest_held(self) -> float | None:
        """The highest rate that held, below every one that failed; None if none did."""
        ceiling = self.lowest_failed
        held = [rate for rate, ok in self.tried.items() if ok and (ceiling is None or rate < ceiling)]
        return max(held, default=None)

    @property
    def lowest_failed(self) -> float | None:
        """The lowest rate that failed; None if none did."""
        return min((rate for rate, ok in self.tried.items() if not ok), default=None)

    def next_rate(self) -> float | None:
        """Return the next rate to try, to three digits; None when the search has ended."""
        if len(self.tried) >= self.max_probes:
            return None
        if not self.tried:
            return _rounded(self.rate)
        low, high = self.highest_held, self.lowest_failed
        if high is None:
            assert low is not None  # something was tried
            return _rounded(low * 2)
        if low is None:
            return _rounded(high / 2)
        if high <= low * (1 + self.precision):
            return None
        rate = _rounded(sqrt(low * high))
        return None if rate in self.tried else rate

    def note(self, rate: float, *, held: bool) -> None:
        """Learn how a rate went."""
        self.tried[rate] = held


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
