"""Owns what is known of a run when it ended: what it was, how far it came, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swiftdiff.engine.run_info import RunInfo, Session
from swiftdiff.report.summary import Summary


@dataclass(frozen=True)
class RunResult:
    """A run and its numbers.

    Attributes:
        info: What the run is of.
        sessions: The stretches in which it was worked on.
        summary: What its records come to.
    """

    info: RunInfo
    sessions: tuple[Session, ...]
    summary: Summary

    @property
    def remaining(self) -> int:
        """Requests that were neither served nor failed."""
        return max(self.info.num_requests - self.summary.completed - self.summary.failed, 0)

    @property
    def complete(self) -> bool:
        """Whether every request was served or failed."""
        return self.remaining == 0

    @property
    def peak_host_bytes(self) -> int:
        """Most resident memory of the process in any session; 0 if unknown."""
        return max((session.peak_host_bytes for session in self.sessions), default=0)

    @property
    def peak_device_bytes(self) -> int | None:
        """Most memory held on the accelerator in any session; None on a CPU."""
        peaks = [s.peak_device_bytes for s in self.sessions if s.peak_device_bytes is not None]
        return max(peaks, default=None)

    @property
    def peak_bytes_by_device(self) -> dict[str, int]:
        """Most memory held on each accelerator in any session, by device; empty on a CPU."""
        peaks: dict[str, int] = {}
        for session in self.sessions:
            device = self.info.device  # sessions of earlier versions know but this one
            alone = {} if session.peak_device_bytes is None else {device: session.peak_device_bytes}
            for name, peak in (session.peak_bytes_by_device or alone).items():
                peaks[name] = max(peak, peaks.get(name, 0))
        return peaks

    @property
    def store_note(self) -> str:
        """Sentences for tables of an emulated adapter store and of mapped adapter ids, else empty."""
        emulated, mapped = self.info.emulated_store, self.info.mapped_adapters
        sentences = [f"Adapter store emulated: {emulated}."] if emulated else []
        if mapped is not None:
            sentences.append(f"Adapter ids mapped: {mapped.description}.")
        return " ".join(sentences)

    def to_json(self) -> dict[str, Any]:
        """Return ``summary.json``: flat, under the keys that serving benchmarks share."""
        info = self.info
        return {
            "complete": self.complete,
            "system": info.system,
            "engine": info.engine,
            "exactness": info.exactness,
            "model": info.model,
            "device": info.device,
            "trace": info.trace,
            "trace_sha256": info.trace_sha256,
            "load": info.options.load.describe(),
            "emulated_store": info.emulated_store,
            "mapped_adapters": info.mapped_adapters and info.mapped_adapters.model_dump(),
            "num_warmups": info.options.num_warmups,
            "started_at": info.started_at,
            "sessions": len(self.sessions),
            "num_requests": info.num_requests,
            "remaining": self.remaining,
            **self.summary.to_flat_dict(),
            "peak_host_memory_bytes": self.peak_host_bytes,
            "peak_device_memory_bytes": self.peak_device_bytes,
            "peak_memory_bytes_by_device": self.peak_bytes_by_device,
        }
