"""Systems without a model for tests of comparisons; built by name in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from swiftdiff.config import ServingConfig
from swiftdiff.errors import AdapterError, ModelError
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import Exactness, Served, Waiting
from swiftdiff.telemetry.timeline import Timeline

SERVICE_S = 0.001
SLOW_S = 2.05


@dataclass(frozen=True)
class FakeBuild:
    """Builds fakes by the name of their config.

    Attributes:
        cannot_start: Systems that cannot be built.
        dies: Systems whose process ends at their first request.
        fails: Systems that serve no request.
        stops: Systems that serve one request and never a second.
        slow: Systems that take SLOW_S for a request.
        log: File that gets a line a request: system, request and process.
    """

    cannot_start: tuple[str, ...] = ()
    dies: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    log: Path | None = None

    def __call__(self, config: ServingConfig) -> CompareFake:
        if config.name in self.cannot_start:
            raise ModelError("the model is not there")
        return CompareFake(config.name, self)


class CompareFake:
    """Sleeps for a moment and paints with the request's seed."""

    exactness: Exactness = "exact"
    num_devices = 1

    def __init__(self, name: str, build: FakeBuild) -> None:
        self.name = name
        self._build = build
        self._num_served = 0

    def warm_up(self) -> None:
        """Nothing to warm."""

    def watch(self, waiting: Waiting) -> None:
        """Nothing loads ahead."""

    def record_to(self, timeline: Timeline) -> None:
        """Nothing to record."""

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        if self._build.log is not None:
            with self._build.log.open("a") as log:
                log.write(f"{self.name} {request.request_id} {os.getpid()}\n")
        if self.name in self._build.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name in self._build.fails:
            raise AdapterError("the file is truncated")
        if self.name in self._build.stops and self._num_served:
            time.sleep(3600)
        self._num_served += 1
        seconds = SLOW_S if self.name in self._build.slow else SERVICE_S
        time.sleep(seconds)
        image = Image.new("RGB", (16, 16), (request.seed % 200, 0, 0))
        return Served([image], {"denoise": seconds}, bytes_loaded=10)

    def finish(self) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to give back."""
