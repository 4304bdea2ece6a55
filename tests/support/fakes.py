"""A system without a model, for tests of everything around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from swiftdiff.config import ServingConfig
from swiftdiff.engine.clock import Clock, RealClock
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import Exactness, Served, Waiting
from swiftdiff.telemetry.timeline import OFF, Timeline


class FakeSystem:
    """Takes ``service_s`` for a request and ``restore_s`` after it on its clock; paints with the seed.

    Args:
        clock: Moved by serving.
        service_s: Seconds of the stage ``denoise``.
        restore_s: Seconds that `finish` takes.
        before: Called with each request before it is served; may raise.
    """

    exactness: Exactness = "exact"
    num_devices = 1

    def __init__(
        self,
        clock: Clock | None = None,
        service_s: float = 1.0,
        restore_s: float = 0.0,
        before: Callable[[ImageRequest], None] = lambda request: None,
    ) -> None:
        self.name = "fake"
        self.clock = clock or RealClock()
        self.service_s = service_s
        self.restore_s = restore_s
        self.before = before
        self.served: list[str] = []
        self.finished = 0
        self.closed = False
        self.timeline: Timeline = OFF

    def warm_up(self) -> None:
        """Nothing to warm."""

    def watch(self, waiting: Waiting) -> None:
        self.waiting = waiting

    def record_to(self, timeline: Timeline) -> None:
        self.timeline = timeline

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        self.before(request)
        with self.timeline.span("denoise"):
            self.clock.sleep(self.service_s)
        self.served.append(request.request_id)
        colour = (request.seed % 256, 0, 0)
        images = [Image.new("RGB", (8, 8), colour) for _ in range(request.num_images)]
        return Served(images, {"denoise": self.service_s}, bytes_loaded=10)

    def finish(self) -> None:
        self.finished += 1
        self.clock.sleep(self.restore_s)

    def close(self) -> None:
        self.closed = True


def fake_config(name: str = "fake") -> ServingConfig:
    return ServingConfig(name=name, engine="diffusers", model="none")


def make_request(request_id: str, at_ms: float = 0.0, **fields: Any) -> ImageRequest:
    return ImageRequest(request_id=request_id, timestamp=at_ms, prompt="a red circle", **fields)


def write_requests(path: Path, requests: Iterable[ImageRequest]) -> Path:
    path.write_text("".join(request.model_dump_json(exclude_none=True) + "\n" for request in requests))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
