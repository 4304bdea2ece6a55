"""Owns how a replay is asked for: when requests arrive and which of them are served."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TraceLoad(_Strict):
    """Open loop: requests arrive when the trace says, ``speed`` times as fast."""

    kind: Literal["trace"] = "trace"
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def describe(self) -> str:
        """Return a phrase for tables."""
        return "trace timestamps" + ("" if self.speed == 1 else f" ×{self.speed:g}")


class RateLoad(_Strict):
    """Open loop: random arrivals as in ``vllm bench serve``.

    Attributes:
        request_rate: Requests a second on average; infinity is all at once.
        burstiness: Shape of the gamma distribution of the gaps: 1 is a Poisson process, below 1 is burstier.
        seed: Of the gaps.
    """

    kind: Literal["rate"] = "rate"
    request_rate: Annotated[float, Field(gt=0)]
    burstiness: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("request_rate", mode="before")
    @classmethod
    def _read_rate(cls, value: object) -> object:
        return math.inf if value == "inf" else value

    @field_serializer("request_rate")
    def _write_rate(self, value: float) -> float | str:
        return "inf" if math.isinf(value) else value  # JSON has no infinity

    def describe(self) -> str:
        """Return a phrase for tables."""
        if math.isinf(self.request_rate):
            return "all at once"
        burst = "" if self.burstiness == 1 else f", burstiness {self.burstiness:g}"
        return f"{self.request_rate:g} requests/s{burst}, seed {self.seed}"


class ClosedLoad(_Strict):
    """Closed loop: at most ``max_concurrency`` requests are under way; the next arrives when one is done."""

    kind: Literal["closed"] = "closed"
    max_concurrency: Annotated[int, Field(ge=1)]

    def describe(self) -> str:
        """Return a phrase for tables."""
        return f"closed loop, {self.max_concurrency} at a time"


Load = Annotated[TraceLoad | RateLoad | ClosedLoad, Field(discriminator="kind")]


class ReplayOptions(_Strict):
    """What a replay does with its trace.

    Attributes:
        load: When requests arrive.
        limit: Serve the first so many requests only.
        num_warmups: Requests from the trace's start that are served beforehand, one after another; recorded
            with ``warmup`` set and left out of every number.
        slo_ms: Latency that every request should keep; None leaves each its own ``slo_ms``.
        adapters: How the trace's adapter ids map to the store's: ``alias``, ``popularity``, ``hash`` or a
            mapping file, see `swiftdiff.adapters.mapping_file.read_rule`; None serves them as they are.
    """

    load: Load = TraceLoad()
    limit: Annotated[int, Field(ge=1)] | None = None
    num_warmups: Annotated[int, Field(ge=0)] = 0
    slo_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    adapters: str | None = None
