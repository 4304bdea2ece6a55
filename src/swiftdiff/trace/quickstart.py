"""Makes the quickstart: its trace and its control images, which are drawn from the prompts themselves.

``python -m swiftdiff.trace.quickstart workloads`` writes them again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.trace.content import control_image
from swiftdiff.trace.writer import write_trace

_SIDE = 128
_SLO_MS = 8000.0
_CONTROLS = "controls"


@dataclass(frozen=True)
class _Control:
    """A ControlNet whose control image is drawn from the request's own prompt."""

    kind: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class _Line:
    """One request of the quickstart; ``at`` is its arrival in seconds, ``loras`` maps id to scale."""

    name: str
    at: float
    prompt: str
    controls: tuple[_Control, ...] = ()
    loras: tuple[tuple[str, float], ...] = ()
    guidance_scale: float = 4.5
    num_images: int = 1
    negative_prompt: str | None = None


# Arrivals keep a two-core machine about nine tenths busy: some requests find it idle, some find a queue.
_LINES = (
    _Line("01-plain", 0.0, "a large red circle above a small blue square on a sand background"),
    _Line(
        "02-neon",
        1.5,
        "a medium yellow star in the middle on a charcoal background",
        loras=(("neon", 1.0),),
    ),
    _Line(
        "03-edges",
        5.0,
        "a large green square left of a small pink circle on a sky background",
        controls=(_Control("edges"),),
    ),
    _Line(
        "04-depth-watercolour",
        7.0,
        "a medium orange ring right of a small cyan square on a mint background",
        controls=(_Control("depth", scale=0.9),),
        loras=(("watercolour", 0.9),),
    ),
    _Line(
        "05-two-pictures",
        8.5,
        "a large cyan triangle on the left on a lavender background",
        num_images=2,
    ),
    _Line(
        "06-layout-edges",
        14.5,
        "a small red square left of a small yellow ring, with a medium blue cross below, "
        "on a slate background",
        controls=(_Control("layout"), _Control("edges", scale=0.7, end=0.6)),
    ),
    _Line(
        "07-blueprint",
        18.0,
        "a large orange cross above a small green circle on a sky background",
        loras=(("blueprint", 1.0),),
    ),
    _Line(
        "08-negative",
        19.5,
        "a large purple star on the right on a mint background",
        guidance_scale=5.0,
        negative_prompt="a large purple star on the left on a charcoal background",
    ),
    _Line(
        "09-all-controls",
        21.0,
        "a medium pink triangle right of a small orange circle, with a small green cross above, "
        "on a lavender background",
        controls=(
            _Control("edges", scale=0.6, end=0.8),
            _Control("depth", scale=0.5, start=0.1, end=0.7),
            _Control("layout", scale=0.8),
        ),
    ),
    _Line(
        "10-pixel-night",
        27.0,
        "a medium yellow circle above a large red cross on a sand background",
        loras=(("pixel", 0.8), ("night", 0.6)),
    ),
    _Line(
        "11-gold",
        29.0,
        "a large pink ring in the middle on a slate background",
        loras=(("gold", 1.0),),
    ),
    _Line(
        "12-edges-sketch",
        30.0,
        "a small blue star left of a large yellow triangle on a sand background",
        controls=(_Control("edges", scale=0.8, end=0.7),),
        loras=(("sketch", 1.0),),
    ),
    _Line(
        "13-stripes",
        33.5,
        "a large purple square below a medium cyan star on a charcoal background",
        loras=(("stripes", 0.9),),
    ),
    _Line(
        "14-depth",
        36.0,
        "a large green circle at the bottom on a lavender background",
        controls=(_Control("depth", start=0.05, end=0.9),),
        guidance_scale=4.0,
    ),
    _Line(
        "15-all-controls-neon-night",
        37.5,
        "a medium cyan circle left of a medium red triangle on a charcoal background",
        controls=(
            _Control("layout", scale=0.7),
            _Control("edges", scale=0.6),
            _Control("depth", 0.4, 0.0, 0.5),
        ),
        loras=(("neon", 0.8), ("night", 0.4)),
    ),
    _Line(
        "16-layout-watercolour",
        44.0,
        "a small pink star below a large blue circle on a mint background",
        controls=(_Control("layout", scale=0.9),),
        loras=(("watercolour", 0.8),),
    ),
)


def quickstart_requests() -> list[ImageRequest]:
    """Return the quickstart's requests in order of arrival."""
    return [
        ImageRequest(
            request_id=line.name,
            timestamp=line.at * 1000,
            prompt=line.prompt,
            negative_prompt=line.negative_prompt,
            width=_SIDE,
            height=_SIDE,
            num_inference_steps=20,
            guidance_scale=line.guidance_scale,
            num_images=line.num_images,
            seed=1000 + index,
            controlnets=tuple(
                ControlNetUse(
                    id=control.kind,
                    image=f"{_CONTROLS}/{line.name[:2]}-{control.kind}.png",
                    scale=control.scale,
                    start=control.start,
                    end=control.end,
                )
                for control in line.controls
            ),
            loras=tuple(LoraUse(id=name, scale=scale) for name, scale in line.loras),
            slo_ms=_SLO_MS,
        )
        for index, line in enumerate(_LINES)
    ]


def write_quickstart(folder: Path) -> int:
    """Write ``quickstart.jsonl`` and its control images into ``folder``; return the number of requests."""
    requests = quickstart_requests()
    (folder / _CONTROLS).mkdir(parents=True, exist_ok=True)
    for request in requests:
        for use in request.controlnets:
            control_image(use.id, request.prompt, _SIDE).save(folder / use.image, optimize=True)
    return write_trace(folder / "quickstart.jsonl", requests)


if __name__ == "__main__":
    write_quickstart(Path(sys.argv[1]))
