"""Owns what a spec may say of adapters: how many a request has, which ones, and how strongly they act."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from swiftdiff.request import ControlNetUse, LoraUse
from swiftdiff.trace.synthesis.draws import FloatDraw, IntDraw, Range, drawn, drawn_numbers
from swiftdiff.trace.synthesis.locality import Locality
from swiftdiff.trace.synthesis.streams import stream
from swiftdiff.trace.synthesis.zipf import Zipf
from swiftdiff.validation import StrictModel

Kind = Literal["loras", "controlnets"]
MAX_PER_REQUEST = 64

_ONE = Range(values=(1.0,))


class Adapters(StrictModel):
    """The LoRAs or ControlNets of requests. One of `zipf` and `locality` says which.

    Attributes:
        per_request: How many a request has.
        scale: How strongly each acts.
        zipf: Popularity by rank, with churn.
        locality: Popularity by how recently an adapter was used, as it is fitted to traces.
    """

    per_request: IntDraw | None = None
    scale: FloatDraw = _ONE
    zipf: Zipf | None = None
    locality: Locality | None = None

    @model_validator(mode="after")
    def _check_that_it_fits_together(self) -> Self:
        if (self.zipf is None) == (self.locality is None):
            raise ValueError("given with a table zipf or a table locality, one of both")
        if self.per_request is not None:
            self.check_count(min(self.per_request.values))
            self.check_count(max(self.per_request.values))
        return self

    def check_count(self, count: int) -> None:
        """Raise ValueError if no request can have that many."""
        most = min(MAX_PER_REQUEST, self.law.most_at_once)
        if not 0 <= count <= most:
            raise ValueError(f"given with 0 to {most} adapters a request, not {count}")

    @property
    def law(self) -> Zipf | Locality:
        """What says which adapters requests use."""
        law = self.zipf or self.locality
        assert law is not None
        return law


class ControlNets(Adapters):
    """ControlNets, which also have a part of the steps in which they act.

    Attributes:
        start: Fraction of the steps after which each begins to act.
        end: Fraction of the steps after which it stops.
    """

    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    end: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"given with an end above its start ({self.start:g})")
        return self


class Picker(Protocol):
    """Picks the adapters of one request after the other."""

    def pick(self, count: int) -> list[str]:
        """Return different adapters, as many as asked for."""
        ...


class AdapterDraws:
    """Draws one kind of adapter for one request after the other.

    Args:
        adapters: What to draw; None is none.
        kind: Names the streams of random numbers.
        seed: The trace's.
    """

    def __init__(self, adapters: Adapters | None, kind: Kind, seed: int) -> None:
        self._picker: Picker | None = adapters.law.picker(stream(seed, f"{kind}.which")) if adapters else None
        scale = adapters.scale if adapters else _ONE
        self._scales = drawn_numbers(scale, stream(seed, f"{kind}.scale"))
        number = adapters.per_request if adapters else None
        self._numbers: Iterator[int] | None = (
            drawn(number, stream(seed, f"{kind}.per_request")) if number is not None else None
        )

    def next(self, count: int | None) -> list[tuple[str, float]]:
        """Return ids and scales for the next request.

        Args:
            count: How many; None draws it.
        """
        if count is None:
            count = next(self._numbers) if self._numbers is not None else 0
        if count == 0 or self._picker is None:
            return []
        return [(name, next(self._scales)) for name in self._picker.pick(count)]


def lora_uses(drawn_loras: list[tuple[str, float]]) -> tuple[LoraUse, ...]:
    """Return them as a request names them."""
    return tuple(LoraUse(id=name, scale=scale) for name, scale in drawn_loras)


def controlnet_use(name: str, scale: float, image: str, controlnets: ControlNets) -> ControlNetUse:
    """Return a ControlNet with its control image as a request names it."""
    return ControlNetUse(id=name, image=image, scale=scale, start=controlnets.start, end=controlnets.end)
