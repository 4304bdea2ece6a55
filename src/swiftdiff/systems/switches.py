"""Owns the switches that one request may set for itself: no weights or graphs depend on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from swiftdiff.config import SwiftdiffConfig
from swiftdiff.validation import StrictModel


class RequestSwitches(StrictModel):
    """A request's own switches; None is the system's. See `swiftdiff.config.SwiftdiffConfig`.

    Attributes:
        latent_parallelism: The two halves of guidance on two lanes.
        controlnet_offload: ControlNets on other lanes than the UNet's.
        reuse_invariants: Compute what does not change over the steps once.
        bal_k: Steps that may begin without a LoRA that still loads; above 0 the picture is approximate.
    """

    latent_parallelism: bool | None = None
    controlnet_offload: bool | None = None
    reuse_invariants: bool | None = None
    bal_k: Annotated[int, Field(ge=0, le=1000)] | None = None

    @classmethod
    def defaults(cls, switches: SwiftdiffConfig) -> dict[str, bool | int | str]:
        """Return what each is in a system when a request does not say."""
        return {name: getattr(switches, name) for name in cls.model_fields}
