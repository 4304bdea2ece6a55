"""Owns what is recorded of each served request of a benchmark: one line of ``raw.jsonl``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from swiftdiff.bench.options import AnyView
from swiftdiff.request import AdapterRecord
from swiftdiff.systems.base import Exactness

Purpose = Literal["measure", "warmup", "threads", "start"]


class Measurement(BaseModel):
    """How one request went. All ``_s`` fields are seconds.

    Attributes:
        purpose: ``measure``; ``warmup``, in no number; ``threads``, to find stock's best thread count; or
            ``start``, of a system's process: its stages are ``build`` and ``warm_up``, it has no setting.
        model: The model's name.
        view: The view.
        setting: Adapter setting, such as ``1C/1L``.
        system: The system's name; for ``threads`` stock's, with the number of threads.
        exactness: What the system declares; None if it did not start.
        repeat: Which one of the repeats.
        started_at: ISO 8601, with time zone.
        error: Why it failed, or None.
        latency_s: From the call of `serve` to the pictures; None if it failed.
        restore_s: What `finish` took afterwards; None if it failed.
        stages: Parts of the latency by name, as far as the system measured them; ``other`` is the rest.
        bytes_loaded: Bytes of adapters read from the store.
        adapters: How each adapter came, for systems that tell.
        graphs_captured: Graphs that were traced, captured or compiled meanwhile, for systems that tell.
        capture_s: Seconds that the process has spent on that so far, when it started included.
        cores: Cores that the process was pinned to.
        threads: Torch's intra-op threads in it.
        device_seconds: Latency and restore, times cores, or times GPUs where it computes on these.
        load_1min: The machine's load average beforehand, the benchmark's own load included.
        other_cpu_s: CPU seconds that other processes used meanwhile, the hypervisor's steal included.
        peak_host_bytes: Most resident memory of the process so far.
        peak_device_bytes: Most memory of each GPU that torch has held in the process so far.
        picture: Path of the picture below the benchmark's folder, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Purpose
    model: str
    view: AnyView
    setting: str
    system: str
    exactness: Exactness | None = None
    repeat: int
    started_at: str
    error: str | None = None
    latency_s: float | None = None
    restore_s: float | None = None
    stages: dict[str, float] = {}
    bytes_loaded: int = 0
    adapters: tuple[AdapterRecord, ...] = ()
    graphs_captured: int | None = None
    capture_s: float = 0.0
    cores: tuple[int, ...] = ()
    threads: int = 0
    device_seconds: float = 0.0
    load_1min: float = 0.0
    other_cpu_s: float = 0.0
    peak_host_bytes: int = 0
    peak_device_bytes: dict[str, int] = {}
    picture: str | None = None

    @property
    def total_s(self) -> float | None:
        """Latency and restore: for how long the system was occupied."""
        if self.latency_s is None or self.restore_s is None:
            return None
        return self.latency_s + self.restore_s

    @property
    def other_share(self) -> float:
        """Cores that other processes kept busy meanwhile."""
        total_s = self.total_s
        return self.other_cpu_s / total_s if total_s else 0.0

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What it measures; a later record of the same key replaces an earlier one."""
        return (self.model, self.view, self.setting, self.system, self.repeat)
