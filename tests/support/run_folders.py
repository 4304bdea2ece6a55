"""Makes run folders without serving anything, for tests of reports and comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fakes import fake_config, make_request
from PIL import Image

from swiftdiff.config import ServingConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.run_info import RunInfo, Session
from swiftdiff.request import RequestRecord

ENVIRONMENT = {
    "swiftdiff": "0.1.0",
    "cpu": "a CPU",
    "cores": 2,
    "usable_cores": 2,
    "memory_bytes": 8 * 2**30,
    "gpus": [],
    "packages": {"torch": "2", "diffusers": "0.42", "transformers": "5", "peft": "0.21"},
}
Served = tuple[RequestRecord, list[Image.Image]]


def served(request_id: str, service_s: float, *, level: int = 100, **fields: Any) -> Served:
    """Return a record of a request that waited for nothing, with a grey picture of a level."""
    stages = fields.pop("stages", {"denoise": service_s, "restore": 0.1})
    wait_s = fields.get("queue_wait_s", 0.0)
    values = {
        "request_id": request_id,
        "status": "ok",
        "scheduled_at_s": 0.0,
        "started_at_s": wait_s,
        "finished_at_s": wait_s + service_s,
        "queue_wait_s": wait_s,
        "latency_s": wait_s + service_s,
        "stages": stages,
        "num_images": 1,
        "num_inference_steps": 20,
        "device_seconds": sum(stages.values()),
    }
    return RequestRecord.model_validate(values | fields), [Image.new("RGB", (8, 8), (level,) * 3)]


def failed(request_id: str) -> Served:
    """Return the record of a request that failed."""
    record, _ = served(request_id, 0.5, status="failed", error="no", error_kind="AdapterError")
    return record, []


def noisy(level: int, seed: int) -> Image.Image:
    """Return a picture of noise around a level."""
    noise = np.random.default_rng(seed).integers(-20, 21, (8, 8, 3))
    return Image.fromarray((level + noise).astype(np.uint8))


def make_run(
    path: Path,
    requests: Iterable[Served],
    *,
    config: ServingConfig | None = None,
    environment: dict[str, Any] | None = None,
    **info: Any,
) -> Path:
    """Write a run's folder and return its path.

    Args:
        path: The folder.
        requests: Its records and pictures.
        config: The system; None is a fake one named as the folder.
        environment: What `ENVIRONMENT` does not say.
        info: Fields of ``run.json`` that differ from a complete run of these requests.
    """
    all_requests = list(requests)
    config = config or fake_config(path.name)
    values = {
        "trace": "/somewhere/trace.jsonl",
        "trace_sha256": "a" * 64,
        "num_requests": len(all_requests),
        "options": ReplayOptions(),
        "system": config.name,
        "engine": config.engine,
        "exactness": "exact",
        "model": config.model,
        "device": config.device,
        "emulated_store": None,
        "started_at": "2026-01-01T00:00:00+00:00",
    }
    folder = RunFolder.create(path, config, RunInfo(**(values | info)), ENVIRONMENT | (environment or {}))
    for record, images in all_requests:
        names = folder.save_images(make_request(record.request_id), images, warmup=False)
        folder.append_record(record.model_copy(update={"images": names}))
    folder.append_session(
        Session(
            started_at="2026-01-01T00:00:00+00:00",
            outcome="complete",
            setup_s=1.0,
            wall_s=2.0,
            peak_host_bytes=300 * 2**20,
            peak_device_bytes=None,
        )
    )
    return path
