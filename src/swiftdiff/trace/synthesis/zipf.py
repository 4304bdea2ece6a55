"""Decides which adapters a request uses by Zipf's law, with churn: newcomers push older ones down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from swiftdiff.validation import StrictModel

_CHUNK = 4096

AdapterId = Annotated[str, Field(min_length=1, max_length=128)]


class Zipf(StrictModel):
    """Adapters with ranks; one is used in proportion to rank to the power of minus the exponent.

    Attributes:
        ids: The adapters, most popular first. Or:
        count: Number of adapters in use at one time, named by prefix and number.
        prefix: Begins their names.
        exponent: 0 is all alike; 1 is Zipf's law.
        churn_per_1000_uses: New adapters in 1,000 uses. Each takes a random rank, those below it fade by
            one, and the last is used no more.
    """

    ids: Annotated[tuple[AdapterId, ...], Field(min_length=1)] | None = None
    count: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=100)] = "adapter-"
    exponent: Annotated[float, Field(ge=0, le=10)] = 1.0
    churn_per_1000_uses: Annotated[float, Field(ge=0, le=1000)] = 0.0

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if (self.ids is None) == (self.count is None):
            raise ValueError("given with ids or with count, one of both")
        if self.ids is not None and len(set(self.ids)) < len(self.ids):
            raise ValueError("given with ids that differ")
        if self.ids is not None and self.churn_per_1000_uses > 0:
            raise ValueError("given with count and prefix for churn, which needs names for new adapters")
        return self

    @property
    def most_at_once(self) -> int:
        """How many different adapters one request can use."""
        return len(self.ids) if self.ids is not None else self.count or 0

    def picker(self, generator: np.random.Generator) -> ZipfPicker:
        """Return what picks adapters with these random numbers."""
        return ZipfPicker(self, generator)


class ZipfPicker:
    """Picks adapters for one request after the other.

    Args:
        zipf: Names, exponent and churn.
        generator: The random numbers.
    """

    def __init__(self, zipf: Zipf, generator: np.random.Generator) -> None:
        self._prefix = zipf.prefix
        size = zipf.most_at_once
        self._ids = list(zipf.ids or (numbered(zipf.prefix, number) for number in range(1, size + 1)))
        self._named = size
        self._churn = zipf.churn_per_1000_uses / 1000
        edges = np.cumsum(np.arange(1, size + 1, dtype=float) ** -zipf.exponent)
        self._edges = edges / edges[-1]
        self._uniforms = uniforms(generator)

    def pick(self, count: int) -> list[str]:
        """Return different adapters, as many as asked for."""
        ranks: list[int] = []
        for _ in range(count):
            ranks.append(self._rank(ranks))
        picked = [self._ids[rank] for rank in ranks]
        if self._churn > 0:
            for _ in picked:
                self._renew()
        return picked

    def _rank(self, taken: list[int]) -> int:
        """Return a rank from 0 that is not taken, in proportion to the weights of those left."""
        spans = [(float(self._edges[rank - 1]) if rank else 0.0, float(self._edges[rank])) for rank in taken]
        at = next(self._uniforms) * (1 - sum(end - start for start, end in spans))
        for start, end in sorted(spans):
            if at >= start:
                at += end - start
        rank = min(int(np.searchsorted(self._edges, at, side="right")), len(self._ids) - 1)
        # Weights that vanish beside the first ones cannot tell ranks apart: take the most popular one left.
        return rank if rank not in taken else next(r for r in range(len(self._ids)) if r not in taken)

    def _renew(self) -> None:
        if next(self._uniforms) < self._churn:
            self._named += 1
            rank = int(next(self._uniforms) * len(self._ids))
            self._ids.insert(rank, numbered(self._prefix, self._named))
            self._ids.pop()


def numbered(prefix: str, number: int) -> str:
    """Return the name of a made-up adapter, such as ``lora-0001``."""
    return f"{prefix}{number:04d}"


def uniforms(generator: np.random.Generator) -> Iterator[float]:
    """Yield numbers from 0 to below 1, for ever."""
    while True:
        yield from generator.random(_CHUNK).tolist()
