"""Decides which adapters a request uses by how recently they were used: reuse distance, then popularity.

A use falls into a band of reuse distances, which are places in the list of adapters ordered by last use, or
it is of a new adapter. So caches of every size hit as often as was measured (Mattson et al., Evaluation
techniques for storage hierarchies, 1970). Within the band the more used adapters are preferred. New ones
arrive as long as there is a chance of a distance that the list does not reach, and old ones fade by falling.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from swiftdiff.trace.synthesis.draws import Weights, check_weights, cumulated
from swiftdiff.trace.synthesis.zipf import numbered, uniforms
from swiftdiff.validation import StrictModel


class Locality(StrictModel):
    """Adapters by reuse distance.

    A distance of 1 is the adapter used last; adapters that the request names already do not count.

    Attributes:
        prefix: Begins the names of adapters.
        distances: The greatest reuse distance of each band, rising; a band begins after the one before.
        weights: Share of uses in each band, and last that of new adapters: one weight more than bands.
        popularity: Within a band, adapters are preferred in proportion to their uses so far to this power.
    """

    prefix: Annotated[str, Field(min_length=1, max_length=100)] = "adapter-"
    distances: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(min_length=1)]
    weights: Weights
    popularity: Annotated[float, Field(ge=0, le=10)] = 1.0

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if any(a >= b for a, b in zip(self.distances, self.distances[1:], strict=False)):
            raise ValueError("given with distances that rise")
        check_weights(self.weights, len(self.distances) + 1, "distances and one more")
        return self

    @property
    def most_at_once(self) -> int:
        """How many different adapters one request can use: new ones arrive without end."""
        return 1_000_000

    def picker(self, generator: np.random.Generator) -> LocalityPicker:
        """Return what picks adapters with these random numbers."""
        return LocalityPicker(self, generator)


class LocalityPicker:
    """Picks adapters for one request after the other, in memory bounded by the greatest distance.

    Args:
        locality: Bands, weights and names.
        generator: The random numbers.
    """

    def __init__(self, locality: Locality, generator: np.random.Generator) -> None:
        self._prefix = locality.prefix
        self._ends = locality.distances
        self._starts = (0, *locality.distances[:-1])
        self._edges = cumulated(locality.weights).tolist()
        self._power = locality.popularity
        self._uniforms = uniforms(generator)
        self._uses: dict[str, int] = {}
        self._recent: list[str] = []  # last used comes first
        self._named = 0

    def pick(self, count: int) -> list[str]:
        """Return different adapters, as many as asked for."""
        # What the request has already lies at the front: it was used last.
        return [self._pick_one(already) for already in range(count)]

    def _pick_one(self, already: int) -> str:
        known = len(self._recent) - already
        place = self._place(known, already)
        if place is None:
            self._named += 1
            name = numbered(self._prefix, self._named)
            if known >= self._ends[-1]:  # the last one is out of every distance's reach
                self._uses.pop(self._recent.pop())
        else:
            name = self._recent.pop(place)
        self._recent.insert(0, name)
        self._uses[name] = self._uses.get(name, 0) + 1
        return name

    def _place(self, known: int, skipped: int) -> int | None:
        """Return a place in the list, or None for a new adapter.

        Args:
            known: Adapters in the list that the request does not name yet.
            skipped: Those that it names: they come first.
        """
        band = bisect_right(self._edges, next(self._uniforms))
        if band >= len(self._ends):
            return None
        start, end = self._starts[band], self._ends[band]
        share = next(self._uniforms)
        # A band that the list fills in part is one of new adapters for the rest.
        reached = min(end, known) - start
        if reached <= 0 or share * (end - start) >= reached:
            return None
        first = skipped + start
        return first if reached == 1 else first + self._preferred(self._recent[first : first + reached])

    def _preferred(self, names: list[str]) -> int:
        """Return the place of one of a band's adapters."""
        edges = list(accumulate(self._uses[name] ** self._power for name in names))
        return min(bisect_right(edges, next(self._uniforms) * edges[-1]), len(names) - 1)
