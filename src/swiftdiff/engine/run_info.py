"""Owns what is written down of a run besides its records: what it is of, and when it was worked on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from swiftdiff.engine.options import ReplayOptions


class MappedAdapters(BaseModel):
    """That a run served other adapters than its trace names; ``adapters.json`` says which.

    Attributes:
        how: The rule, or the mapping file's name.
        sha256: Names what is mapped to what, see `swiftdiff.adapters.mapping.AdapterMapping.sha256`.
        description: What tables say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: str
    sha256: str
    description: str


class RunInfo(BaseModel):
    """What a run is of: the file ``run.json``.

    Attributes:
        trace: Absolute path of the trace.
        trace_sha256: Of its bytes.
        num_requests: Requests to serve, after the limit.
        options: How it is replayed.
        system: The config's name.
        engine: The config's engine.
        exactness: What the system declares.
        model: The config's model.
        emulated_store: How the adapter store's distance was emulated, or None; tables repeat it.
        mapped_adapters: How the trace's adapter ids were mapped, or None; tables repeat it.
        started_at: ISO 8601, with time zone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    trace: str
    trace_sha256: str
    num_requests: int
    options: ReplayOptions
    system: str
    engine: str
    exactness: str
    model: str
    device: str
    emulated_store: str | None
    mapped_adapters: MappedAdapters | None = None
    started_at: str


class Session(BaseModel):
    """One stretch of work on a run: a line of ``sessions.jsonl``.

    Attributes:
        started_at: ISO 8601, with time zone.
        outcome: Why it ended.
        setup_s: Seconds to load the model and warm up, before the clock started.
        wall_s: Seconds from the clock's start to the end.
        peak_host_bytes: Most resident memory of the process.
        peak_device_bytes: Most memory held on the config's accelerator; None on a CPU.
        peak_bytes_by_device: The same for each accelerator that held any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    started_at: str
    outcome: Literal["complete", "interrupted", "stopped"]
    setup_s: float
    wall_s: float
    peak_host_bytes: int
    peak_device_bytes: int | None
    peak_bytes_by_device: dict[str, int] = {}
