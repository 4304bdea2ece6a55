"""Serves requests through real systems as the engine does, for tests of what they give."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.systems import ServingSystem, build_system

with quiet_libraries():
    from swiftdiff.systems.swiftdiff import SwiftdiffSystem

Picture = np.ndarray[Any, np.dtype[np.uint8]]

CONTROLNETS = ("edges", "depth", "layout")
#: One changes the text encoders and convolutions, one only the UNet's attention.
LORAS = ("gold", "neon")
#: Two lanes of one thread: sums are split as in stock's one thread, so that nothing else differs.
LANES = ("cpu:0", "cpu:1")
PLAIN = {
    "latent_parallelism": False,
    "controlnet_offload": False,
    "graph_replay": False,
    "tuned_kernels": False,
    "reuse_invariants": False,
    "prefetch": False,
}
#: Each switch alone, by name.
SWITCHES: dict[str, dict[str, Any]] = {
    "none": {},
    "latent parallelism": {"latent_parallelism": True},
    "offload": {"controlnet_offload": True},
    "graphs": {"graph_replay": True},
    "kernels": {"tuned_kernels": True},
    "invariants": {"reuse_invariants": True},
    "prefetch": {"prefetch": True},
    "decode lane": {"decode_lane": "cpu:2"},
    "all": dict.fromkeys(PLAIN, True) | {"decode_lane": "cpu:2"},
}


@dataclass(frozen=True)
class Outcome:
    """What came of a request: its pictures, or why there are none."""

    pictures: tuple[Picture, ...] = ()
    error: Exception | None = None
    served: Any = None


def engine_config(model: Path | str, scheduler: Any = "euler", **switches: Any) -> ServingConfig:
    """Return a config of two one-thread lanes with nothing else than ``switches`` on."""
    return ServingConfig(
        name="engine",
        engine="swiftdiff",
        model=str(model),
        scheduler=scheduler,
        threads=1,
        swiftdiff=SwiftdiffConfig(**({"lanes": LANES} | PLAIN | switches)),
    )


@contextmanager
def engine(model: Path | str, scheduler: Any = "euler", **switches: Any) -> Iterator[SwiftdiffSystem]:
    """Build the engine, and close it."""
    system = build_system(engine_config(model, scheduler, **switches))
    assert isinstance(system, SwiftdiffSystem)
    try:
        yield system
    finally:
        system.close()


@contextmanager
def stock(model: Path | str, scheduler: Any = "euler") -> Iterator[ServingSystem]:
    """Build the baseline, and close it."""
    config = ServingConfig(name="stock", engine="diffusers", model=str(model), scheduler=scheduler, threads=1)
    system = build_system(config)
    try:
        yield system
    finally:
        system.close()


def request(request_id: str = "r", **fields: Any) -> ImageRequest:
    """Return a request of two steps; other fields as given."""
    values = {"timestamp": 0.0, "prompt": "a red cat", "seed": 5, "num_inference_steps": 2}
    return ImageRequest(request_id=request_id, **(values | fields))


def with_adapters(
    num_controlnets: int, loras: Sequence[str] = (), request_id: str = "r", **fields: Any
) -> ImageRequest:
    """Return a request with the first ControlNets and some LoRAs, each with a scale of its own."""
    scales = (0.8, 1.0, 0.5)
    nets = [
        ControlNetUse(id=name, image="control.png" if index != 1 else "other-size.png", scale=scales[index])
        for index, name in enumerate(CONTROLNETS[:num_controlnets])
    ]
    uses = [LoraUse(id=name, scale=0.9 - 0.3 * index) for index, name in enumerate(loras)]
    return request(request_id, controlnets=tuple(nets), loras=tuple(uses), **fields)


def draw_controls(folder: Path) -> Path:
    """Write the control images that `with_adapters` names, one of which must be resized."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "control.png")
    Image.fromarray(noise[:40, :56]).save(folder / "other-size.png")
    return folder


def serve(system: ServingSystem, one: ImageRequest, images: Path) -> tuple[Picture, ...]:
    """Serve a request alone and return its pictures; raises what serving raises."""
    (outcome,) = replay(system, [one], images)
    if outcome.error is not None:
        raise outcome.error
    return outcome.pictures


def replay(system: ServingSystem, requests: Sequence[ImageRequest], images: Path) -> list[Outcome]:
    """Serve requests that all wait from the start, and collect deferred pictures when all are served."""
    waiting = deque(requests)
    system.watch(lambda limit: list(waiting)[:limit])
    results: list[Any] = []
    while waiting:
        try:
            results.append(system.serve(waiting.popleft(), images))
        except Exception as error:
            results.append(error)
        finally:
            system.finish()
    return [_outcome(result) for result in results]


def _outcome(result: Any) -> Outcome:
    if isinstance(result, Exception):
        return Outcome(error=result)
    pictures = result.images() if callable(result.images) else result.images
    return Outcome(tuple(np.asarray(picture) for picture in pictures), served=result)


def largest_difference(some: Sequence[Picture], others: Sequence[Picture]) -> int:
    """Return the largest difference of any two pixels' values, of 255."""
    assert len(some) == len(others) > 0
    return max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(some, others, strict=True))


def are_equal(some: Sequence[Picture], others: Sequence[Picture]) -> bool:
    """Tell whether pictures are the same bit for bit."""
    return len(some) == len(others) > 0 and all(map(np.array_equal, some, others))


def weights_of(system: SwiftdiffSystem) -> dict[str, Any]:
    """Return copies of all that LoRAs could change."""
    pipe = system._model._pipe
    return {
        f"{part}.{key}": value.clone()
        for part in ("unet", "text_encoder", "text_encoder_2")
        for key, value in getattr(pipe, part).state_dict().items()
    }
