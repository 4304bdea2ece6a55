"""Makes requests from a spec, one after the other, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

import swiftdiff
from swiftdiff.errors import ConfigError
from swiftdiff.request import ImageRequest
from swiftdiff.scenes.control import CONTROL_KINDS
from swiftdiff.trace.content import ContentPool
from swiftdiff.trace.foreign_ids import stable_choice
from swiftdiff.trace.provenance import Provenance, Source
from swiftdiff.trace.reader import trace_sha256
from swiftdiff.trace.synthesis.adapters import AdapterDraws, controlnet_use, lora_uses
from swiftdiff.trace.synthesis.arrivals import arrival_times
from swiftdiff.trace.synthesis.draws import drawn, drawn_numbers
from swiftdiff.trace.synthesis.spec import TraceSpec
from swiftdiff.trace.synthesis.streams import stream

_CHUNK = 4096
_MOST_SIDE = 1024
_SEEDS = 2**31


def generate(
    spec: TraceSpec, seed: int, pool: ContentPool, prompts: Sequence[str] = ()
) -> Iterator[ImageRequest]:
    """Yield requests in order of arrival, for ever. Fewer of them are the beginning of more.

    Args:
        spec: What they are like.
        seed: Of all that is drawn; the spec's own is not looked at.
        pool: Captions and control images.
        prompts: What to ask for instead of the pool's captions.
    """
    resolution_s = spec.resolution_ms / 1000
    pictures = spec.pictures
    steps = drawn(pictures.num_inference_steps, stream(seed, "num_inference_steps"))
    guidance = drawn_numbers(pictures.guidance_scale, stream(seed, "guidance_scale"))
    images = drawn(pictures.num_images, stream(seed, "num_images"))
    sizes = drawn(pictures.size, stream(seed, "size")) if pictures.size else None
    slos = drawn_numbers(pictures.slo_ms, stream(seed, "slo_ms")) if pictures.slo_ms else None
    seeds = _integers(stream(seed, "seed"), _SEEDS)
    scenes = _integers(stream(seed, "prompts"), len(prompts) or spec.prompts.shapes)
    loras = AdapterDraws(spec.loras, "loras", seed)
    controlnets = AdapterDraws(spec.controlnets, "controlnets", seed)
    turns = cycle(spec.adapters_in_turn or ((None, None),))
    for number, arrival_s in enumerate(arrival_times(spec.arrivals, seed, resolution_s)):
        scene = next(scenes)
        num_controlnets, num_loras = next(turns)
        width, height = next(sizes) if sizes else (None, None)
        yield ImageRequest(
            request_id=f"{number:07d}",
            timestamp=_on_clock(arrival_s, spec.resolution_ms),
            prompt=prompts[scene] if prompts else pool.prompt(scene),
            negative_prompt=spec.prompts.negative,
            width=width,
            height=height,
            num_inference_steps=next(steps),
            guidance_scale=next(guidance),
            num_images=next(images),
            seed=next(seeds),
            controlnets=tuple(
                controlnet_use(name, scale, pool.control_image(scene, control_kind(name)), spec.controlnets)
                for name, scale in controlnets.next(num_controlnets)
                if spec.controlnets
            ),
            loras=lora_uses(loras.next(num_loras)),
            slo_ms=next(slos) if slos else None,
        )


def control_kind(controlnet: str) -> str:
    """Return the kind of control image that a ControlNet gets: its own name, or one of the kinds for ever."""
    return controlnet if controlnet in CONTROL_KINDS else stable_choice(controlnet, CONTROL_KINDS)


def content_pool(spec: TraceSpec, seed: int, stem: str) -> ContentPool:
    """Return the captions and control images that a spec's requests share.

    Args:
        spec: Says how many there are; the largest side of its pictures is that of control images.
        seed: The trace's.
        stem: Begins the name of the folder of control images.
    """
    sides = [side for size in (spec.pictures.size.values if spec.pictures.size else ()) for side in size]
    return ContentPool(seed, min(max(sides, default=128), _MOST_SIDE), spec.prompts.shapes, stem=stem)


def provenance(spec_path: Path, seed: int, options: dict[str, int | float]) -> Provenance:
    """Return the first line of a trace that a spec made.

    Args:
        spec_path: The spec.
        seed: Of all that was drawn.
        options: What the command said beside it, such as ``requests``.
    """
    return Provenance(
        command="trace generate",
        swiftdiff=swiftdiff.__version__,
        sources=(Source(name=spec_path.name, sha256=trace_sha256(spec_path)),),
        options=dict(options),
        seed=seed,
    )


def take(
    requests: Iterator[ImageRequest], count: int | None, duration_s: float | None
) -> Iterator[ImageRequest]:
    """Yield the first requests: so many, or those that arrive before an end.

    Raises:
        ConfigError: None arrives before that end.
    """
    for number, request in enumerate(requests):
        if (count is not None and number >= count) or (
            duration_s is not None and request.timestamp >= duration_s * 1000
        ):
            if number == 0:
                first_s = request.timestamp / 1000
                raise ConfigError.for_field("--duration", duration_s, f"above {first_s:g}, the first arrival")
            return
        yield request


def finishing(requests: Iterator[ImageRequest], then: Callable[[], object]) -> Iterator[ImageRequest]:
    """Yield all requests and then do something, before whoever consumes them is done."""
    yield from requests
    then()


def _on_clock(seconds: float, resolution_ms: float) -> float:
    return round(int(seconds * 1000 / resolution_ms + 1e-6) * resolution_ms, 3)


def _integers(generator: np.random.Generator, below: int) -> Iterator[int]:
    while True:
        yield from generator.integers(below, size=_CHUNK).tolist()
