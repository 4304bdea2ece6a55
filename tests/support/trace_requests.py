"""Small requests and traces for tests of what describes and changes traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.trace import write_trace


def request(
    name: str = "r0", at_s: float = 0, loras: Iterable[str] = (), controlnets: Iterable[str] = ()
) -> ImageRequest:
    """Return a request; its control images are ``c/<id>.png``."""
    return ImageRequest(
        request_id=name,
        timestamp=at_s * 1000,
        prompt="a red circle",
        loras=tuple(LoraUse(id=lora) for lora in loras),
        controlnets=tuple(ControlNetUse(id=net, image=f"c/{net}.png") for net in controlnets),
    )


def requests_at(*arrivals_s: float) -> list[ImageRequest]:
    """Return requests ``r0``, ``r1``, ... without adapters."""
    return [request(f"r{number}", at_s) for number, at_s in enumerate(arrivals_s)]


def with_loras(ids: Sequence[str], every_s: float = 1) -> list[ImageRequest]:
    """Return requests with one LoRA each."""
    return [request(f"r{number}", number * every_s, loras=[lora]) for number, lora in enumerate(ids)]


def trace_of(path: Path, requests: Iterable[ImageRequest]) -> Path:
    """Write a trace and its control images, whose content is their path."""
    kept = list(requests)
    write_trace(path, kept)
    for one in kept:
        for use in one.controlnets:
            image = path.parent / use.image
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_text(str(image))
    return path
