"""Owns what a user may choose when a trace is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from swiftdiff.request import MAX_SIDE, MAX_STEPS, SIZE_MULTIPLE
from swiftdiff.validation import StrictModel

TimeUnit = Literal["s", "ms", "us", "ns"]
Join = Literal["rows", "uses"]


def _check_side(value: int) -> int:
    if not 0 < value <= MAX_SIDE or value % SIZE_MULTIPLE:
        raise ValueError(f"a multiple of {SIZE_MULTIPLE} from {SIZE_MULTIPLE} to {MAX_SIDE}")
    return value


Side = Annotated[int, AfterValidator(_check_side)]


class ImportOptions(StrictModel):
    """Options of an import. What is None is left to the source, or to the defaults of a request.

    Attributes:
        seed: Of everything that is made up.
        limit: Requests to keep at most.
        sort: Whether to sort the source by arrival; otherwise an unsorted one is an error.
        time_unit: Of numeric timestamps; None detects it.
        request_rate: Requests a second at which a source without timestamps is made to arrive.
        steps: ``num_inference_steps`` where the source has none.
        max_steps: Cuts ``num_inference_steps``, for machines smaller than the source's.
        max_images: Cuts ``num_images`` likewise.
        guidance: ``guidance_scale`` where the source has none.
        width: Pixels where the source has none.
        height: Pixels where the source has none.
        slo_ms: Milliseconds where the source has none.
        prompts: File with a prompt a line, used in turn where the source has none.
        controlnet_share: Share of the requests that get one made-up ControlNet, where the source has none.
        base_model: Keep only the requests of this base model.
        scene: Keep only the requests of this service (Katz).
        join: How GenTD26's file of adapters is joined to its file of arrivals.
        columns: Our field -> the source's column (CSV).
    """

    seed: Annotated[int, Field(ge=0, le=2**32)] = 0
    limit: Annotated[int | None, Field(gt=0)] = None
    sort: bool = False
    time_unit: TimeUnit | None = None
    request_rate: Annotated[float | None, Field(gt=0)] = None
    steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS)] = None
    max_steps: Annotated[int | None, Field(ge=1)] = None
    max_images: Annotated[int | None, Field(ge=1)] = None
    guidance: Annotated[float | None, Field(ge=0)] = None
    width: Side | None = None
    height: Side | None = None
    slo_ms: Annotated[float | None, Field(gt=0)] = None
    prompts: Path | None = None
    controlnet_share: Annotated[float | None, Field(ge=0, le=1)] = None
    base_model: str | None = None
    scene: str | None = None
    join: Join | None = None
    columns: dict[str, str] | None = None
