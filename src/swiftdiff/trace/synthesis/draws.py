"""Owns what a spec may say of a number that each request draws: one value, weighted values, or a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Generic, Self, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from swiftdiff.validation import StrictModel

_CHUNK = 4096
_T = TypeVar("_T")

Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]


class Choice(StrictModel, Generic[_T]):
    """Values with weights.

    Attributes:
        values: What can be drawn.
        weights: How often, relative to each other; None is equally often.
    """

    values: Annotated[tuple[_T, ...], Field(min_length=1)]
    weights: Weights | None = None

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        check_weights(self.weights, len(self.values), "values")
        return self


class Range(StrictModel):
    """Weighted values, or anything between two bounds with equal chances.

    Attributes:
        values: What can be drawn; None where a range is meant.
        weights: How often, relative to each other; None is equally often.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    values: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    weights: Weights | None = None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _check_that_it_is_one_of_both(self) -> Self:
        if (self.values is None) == (self.low is None and self.high is None):
            raise ValueError("a number, or {values, weights}, or {low, high}")
        if self.values is not None:
            check_weights(self.weights, len(self.values), "values")
        elif self.low is None or self.high is None or self.low > self.high or self.weights is not None:
            raise ValueError("a range with low at most high, and no weights")
        return self

    @property
    def least(self) -> float:
        """The smallest number that can be drawn."""
        return min(self.values) if self.values is not None else float(self.low or 0)


def _as_table(value: Any) -> Any:
    """Let a value that stands alone be a choice of one; strict models want tuples where TOML has lists."""
    if isinstance(value, StrictModel):
        return value.model_dump(exclude_none=True)
    table = value if isinstance(value, dict) else {"values": [value]}
    return {key: _as_tuples(entry) for key, entry in table.items()}


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(entry) for entry in value) if isinstance(value, list) else value


IntDraw = Annotated[Choice[int], BeforeValidator(_as_table)]
FloatDraw = Annotated[Range, BeforeValidator(_as_table)]
SizeDraw = Annotated[Choice[tuple[int, int]], BeforeValidator(_as_table)]


def check_weights(weights: Sequence[float] | None, number: int, of_what: str) -> None:
    """Raise ValueError unless there is a weight for each of ``number`` things and one is above 0."""
    if weights is None:
        return
    if len(weights) != number:
        raise ValueError(f"given with as many weights as {of_what} ({number}), not {len(weights)}")
    if sum(weights) <= 0:
        raise ValueError("given with at least one weight above 0")


def drawn(draw: Choice[_T], generator: np.random.Generator) -> Iterator[_T]:
    """Yield one value after another, for ever."""
    edges = cumulated(draw.weights or [1.0] * len(draw.values))
    while True:
        for index in np.searchsorted(edges, generator.random(_CHUNK), side="right").tolist():
            yield draw.values[index]


def drawn_numbers(draw: Range, generator: np.random.Generator) -> Iterator[float]:
    """Yield one number after another, for ever; numbers of a range have three decimals."""
    if draw.values is not None:
        yield from drawn(Choice[float](values=draw.values, weights=draw.weights), generator)
    low, high = float(draw.low or 0), float(draw.high or 0)
    while True:
        yield from np.round(low + (high - low) * generator.random(_CHUNK), 3).tolist()


def cumulated(weights: Sequence[float]) -> np.ndarray:
    """Return cumulated shares, of which the last is 1."""
    edges = np.cumsum(np.asarray(weights, dtype=float))
    edges /= edges[-1]
    edges[-1] = 1.0
    return edges
