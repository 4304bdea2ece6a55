"""Owns what a fit looks at: arrivals, adapters and settings of real requests, from a trace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swiftdiff.errors import TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.provenance import Source
from swiftdiff.trace.reader import read_trace, trace_sha256

Floats = NDArray[np.float64]
Uses = tuple[tuple[str, ...], ...]

MIN_REQUESTS = 20


@dataclass(frozen=True)
class Observations:
    """Columns of requests; arrivals may come from other requests than adapters do.

    Attributes:
        arrivals_s: Seconds, never falling, counted from the start of a day if that is known.
        loras: Ids of each request's LoRAs, requests in order of arrival.
        controlnets: The same for ControlNets.
        lora_scales: Scale of each LoRA's use.
        controlnet_scales: Scale of each ControlNet's use.
        settings: Lists of what requests asked for, by field of the spec's pictures.
        load_times_s: Measured seconds of loads, by kind of adapter.
        sources: Files they come from.
        filled_in: What the source lacks and what a fit assumes, by part of the spec.
    """

    arrivals_s: Floats
    loras: Uses
    controlnets: Uses = ()
    lora_scales: tuple[float, ...] = ()
    controlnet_scales: tuple[float, ...] = ()
    settings: dict[str, list[int] | list[float] | list[tuple[int, int]]] = field(default_factory=dict)
    load_times_s: dict[str, Floats] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    filled_in: dict[str, str] = field(default_factory=dict)

    def part(self, begin: float, end: float) -> Observations:
        """Return the requests between two fractions of their number, for fitting to one part of a source."""

        def of(number: int) -> slice:
            return slice(round(begin * number), round(end * number))

        return replace(
            self,
            arrivals_s=self.arrivals_s[of(len(self.arrivals_s))],
            loras=self.loras[of(len(self.loras))],
            controlnets=self.controlnets[of(len(self.controlnets))],
        )


def observe_requests(requests: Iterable[ImageRequest]) -> Observations:
    """Return what a fit needs of requests."""
    arrivals: list[float] = []
    loras: list[tuple[str, ...]] = []
    controlnets: list[tuple[str, ...]] = []
    lora_scales: list[float] = []
    controlnet_scales: list[float] = []
    steps: list[int] = []
    images: list[int] = []
    guidance: list[float] = []
    sizes: list[tuple[int, int]] = []
    slos: list[float] = []
    names: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal sets of adapters share one tuple
    for request in requests:
        arrivals.append(request.timestamp / 1000)
        used = tuple(dict.fromkeys(use.id for use in request.loras))
        loras.append(names.setdefault(used, used))
        used = tuple(dict.fromkeys(use.id for use in request.controlnets))
        controlnets.append(names.setdefault(used, used))
        lora_scales.extend(use.scale for use in request.loras)
        controlnet_scales.extend(use.scale for use in request.controlnets)
        steps.append(request.num_inference_steps)
        images.append(request.num_images)
        guidance.append(request.guidance_scale)
        if request.width is not None and request.height is not None:
            sizes.append((request.width, request.height))
        if request.slo_ms is not None:
            slos.append(request.slo_ms)
    return Observations(
        arrivals_s=np.array(arrivals),
        loras=tuple(loras),
        controlnets=tuple(controlnets),
        lora_scales=tuple(lora_scales),
        controlnet_scales=tuple(controlnet_scales),
        settings={
            "num_inference_steps": steps,
            "num_images": images,
            "guidance_scale": guidance,
            "size": sizes,
            "slo_ms": slos,
        },
    )


def observe(source: Path) -> Observations:
    """Read a trace, or a folder with the files of GenTD26.

    Raises:
        TraceError: It cannot be read, something in it is wrong, or it is too short to be fitted.
    """
    if source.is_dir():
        from swiftdiff.trace.synthesis.gentd26 import observe_gentd26

        observations = observe_gentd26(source)
    else:
        observations = observe_requests(read_trace(source))
        observations = replace(
            observations,
            sources=(Source(name=source.name, sha256=trace_sha256(source)),),
            filled_in={"prompts": "captions of scenes, whatever the trace's prompts show"},
        )
    number = min(len(observations.arrivals_s), len(observations.loras))
    if number < MIN_REQUESTS:
        raise TraceError(f"{source}: {number} requests are too few for a fit: give it {MIN_REQUESTS} or more")
    if observations.arrivals_s[-1] <= observations.arrivals_s[0]:
        raise TraceError(f"{source}: all requests arrive at one time, but a fit needs arrivals that differ")
    return observations
