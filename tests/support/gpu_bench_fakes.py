"""What tests of the benchmark on GPUs put in place of GPUs, and made-up measurements on them."""

from __future__ import annotations

import itertools
from pathlib import Path

from bench_fakes import FakeBuild, fabricate, fabricate_environment

from swiftdiff.bench.ceiling import Ceiling
from swiftdiff.bench.counted_work import Work
from swiftdiff.bench.gpu_options import GpuBenchFolder, GpuBenchOptions
from swiftdiff.bench.gpu_session import Seams
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.worker import nothing

GPU = {
    "index": "0",
    "name": "NVIDIA H100 80GB HBM3",
    "driver_version": "580.1",
    "memory.total": "81559",
    "memory.used": "4",
    "utilization.gpu": "0",
    "clocks.max.sm": "1980",
    "power.limit": "700.00",
}


class FakeCeiling:
    """Knows at once."""

    def result(self) -> Ceiling:
        return fake_ceiling(800.0)


def fake_ceiling(tflops: float) -> Ceiling:
    """Return a GPU's ceiling."""
    return Ceiling(
        tflops, {4096: 0.5 * tflops, 8192: tflops}, "float16", GPU["name"], 80 << 30, "13.0", 91002
    )


def fake_seams(build: FakeBuild | None = None, *, num_gpus: int = 1, seconds_a_look: float = 0.0) -> Seams:
    """Return seams for a machine with GPUs.

    Args:
        build: Makes the systems.
        num_gpus: How many there are.
        seconds_a_look: By how much the clock goes on whenever it is read.
    """
    looks = itertools.count()
    return Seams(
        build=build or FakeBuild(),
        ceiling=lambda device, dtype: FakeCeiling(),
        count_gpus=lambda: num_gpus,
        count_work=lambda model, side: Work(13.5, 6.0, 10.5),
        preload=nothing,
        clock=lambda: next(looks) * seconds_a_look,
    )


def small_gpu_options(**fields: object) -> GpuBenchOptions:
    """Return options of a benchmark that takes no time."""
    values = {
        "model": "shapes",
        "settings": ("0C/0L", "1C/1L"),
        "systems": ("swiftdiff", "all-off"),
        "repeats": 2,
        "steps": 4,
    }
    return GpuBenchOptions.model_validate(values | fields)


def fabricate_folder(
    path: Path,
    measurements: list[Measurement],
    *,
    ceilings: tuple[float, float] = (800.0, 790.0),
    gpu: dict[str, str] | None = None,
    **options: object,
) -> GpuBenchFolder:
    """Write a benchmark's folder, as a session would have left it."""
    folder = GpuBenchFolder.create(path, GpuBenchOptions.model_validate({"model": "sdxl", **options}))
    before, after = (fake_ceiling(each).to_json() for each in ceilings)
    session = {
        "started_at": "2026-01-01T00:00:00+00:00",
        "load_1min": 0.0,
        "gpus": [GPU | (gpu or {})],
        "ceiling": before,
        "ceiling_after": after,
    }
    folder.write_json(
        "environment.json", fabricate_environment() | {"nvidia_smi": [GPU], "sessions": [session]}
    )
    folder.write_json("work.json", {"unet_step": 13.5, "controlnet_step": 6.0, "vae_decode": 10.5})
    for measured in measurements:
        folder.append(measured)
    return folder


def on_gpus(system: str, latencies_s: list[float], setting: str, **fields: object) -> list[Measurement]:
    """Return measurements as `fabricate` does, on a GPU."""
    update = {"peak_device_bytes": {"cuda:0": 20 << 30}, **fields}
    made = fabricate(system, latencies_s, setting, model="sdxl", view="gpu")
    return [each.model_copy(update=update) for each in made]
