"""Systems without a model for tests of the benchmark; built by name in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from swiftdiff.bench.options import BenchOptions
from swiftdiff.bench.records import Measurement
from swiftdiff.config import ServingConfig
from swiftdiff.errors import AdapterError, ModelError
from swiftdiff.request import AdapterRecord, ImageRequest
from swiftdiff.systems.base import Exactness, Served, Waiting
from swiftdiff.telemetry.timeline import Timeline


@dataclass(frozen=True)
class FakeBuild:
    """Builds fakes; names say which of them misbehave.

    Attributes:
        cannot_start: Systems that cannot be built.
        fails: Systems that serve no request with a LoRA.
        dies: Systems whose process ends at a request with a ControlNet.
        cannot_restore: Systems whose model is lost after the first request.
        slow: Systems that take long enough to be interrupted.
        log: File that gets a line a served request.
    """

    cannot_start: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    dies: tuple[str, ...] = ()
    cannot_restore: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    log: Path | None = None

    def __call__(self, config: ServingConfig) -> BenchFake:
        if config.name in self.cannot_start:
            raise ModelError("the model is not there")
        return BenchFake(config, self)


class BenchFake:
    """Paints with the seed; `swiftdiff+bal40` paints one level off."""

    num_devices = 1

    def __init__(self, config: ServingConfig, build: FakeBuild) -> None:
        self.name = config.name
        self.exactness: Exactness = "approximate" if config.swiftdiff.bal_k else "exact"
        self._threads = config.threads
        self._build = build

    def warm_up(self) -> None:
        """Nothing to warm."""

    def watch(self, waiting: Waiting) -> None:
        """Nothing loads ahead."""

    def record_to(self, timeline: Timeline) -> None:
        """Nothing to show."""

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        if self._build.log is not None:
            with self._build.log.open("a") as log:
                log.write(f"{self.name} {self._threads} {os.getpid()} {request.model_dump_json()}\n")
        if self.name in self._build.dies and request.controlnets:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name in self._build.fails and request.loras:
            raise AdapterError("the file is truncated")
        for use in request.controlnets:
            with Image.open(images_root / use.image) as image:
                assert image.size == (request.width, request.height)
        time.sleep(600 if self.name in self._build.slow else 0.001)
        level = request.seed % 200 + (self.exactness == "approximate")
        return Served([Image.new("RGB", (8, 8), (level, 0, 0))], {"denoise": 0.001}, bytes_loaded=10)

    def finish(self) -> None:
        if self.name in self._build.cannot_restore:
            raise RuntimeError("weights are gone")

    def close(self) -> None:
        """Nothing to give back."""


def fabricate(
    system: str,
    latencies_s: Sequence[float],
    setting: str = "0C/1L",
    *,
    model: str = "shapes",
    view: str = "same-hardware",
    restore_s: float = 0.0,
    stages: dict[str, float] | None = None,
    lora_ready_s: float | None = None,
    other_cpu_s: float = 0.0,
) -> list[Measurement]:
    """Return one measurement a latency."""
    loads = () if lora_ready_s is None else (lora_ready_s,)
    return [
        Measurement(
            purpose="measure",
            model=model,
            view=view,
            setting=setting,
            system=system,
            repeat=repeat,
            exactness="exact",
            started_at="2026-01-01T00:00:00+00:00",
            latency_s=latency_s,
            restore_s=restore_s,
            stages=stages or {"denoise": latency_s},
            adapters=tuple(
                AdapterRecord(kind="lora", id="neon", source="store", bytes_loaded=5, load_s=load_s)
                for load_s in loads
            ),
            cores=(0, 1),
            threads=2,
            device_seconds=2 * (latency_s + restore_s),
            other_cpu_s=other_cpu_s,
            peak_host_bytes=3 << 20,
        )
        for repeat, latency_s in enumerate(latencies_s)
    ]


def fabricate_environment(load_1min: float = 0.0) -> dict[str, object]:
    """Return what ``environment.json`` of a benchmark has."""
    return {
        "swiftdiff": "0.1.0",
        "git_commit": None,
        "command": ["swiftdiff", "bench"],
        "python": "3.11",
        "platform": "Linux",
        "packages": {"torch": "2.9", "diffusers": "0.42"},
        "cpu": "a processor",
        "cores": 2,
        "usable_cores": 2,
        "memory_bytes": 1 << 33,
        "sessions": [{"started_at": "2026-01-01T00:00:00+00:00", "load_1min": load_1min}],
    }


def small_options(**fields: object) -> BenchOptions:
    """Return options of a benchmark that takes no time."""
    values = {
        "models": ("shapes",),
        "settings": ("0C/0L", "1C/1L"),
        "views": ("same-hardware",),
        "systems": ("swiftdiff",),
        "repeats": 2,
        "steps": 4,
    }
    return BenchOptions.model_validate(values | fields)
