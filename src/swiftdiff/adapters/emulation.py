"""Decides how long fetches from an emulated remote store take: by numbers with jitter, or as was measured."""

from __future__ import annotations

import math
import random
import statistics
import threading
from collections import Counter
from pathlib import Path

from swiftdiff.adapters.measured_times import KINDS, AdapterKind, MeasuredTimes, read_measurements
from swiftdiff.config import StoreEmulationConfig


class FetchTimes:
    """The emulated time of each fetch. Safe on several threads.

    An adapter's n-th fetch takes a time that only the seed, its kind, its id and n decide: whichever thread
    asks, whatever else is fetched, and in every process.

    Args:
        config: What to emulate.

    Raises:
        ConfigError: A file of measured times cannot be used.
    """

    def __init__(self, config: StoreEmulationConfig) -> None:
        self._config = config
        self._measured = {
            kind: times for file in _measured_files(config) for kind, times in file.seconds.items()
        }
        # Of the normal distribution below the lognormal one.
        self._sigma = math.sqrt(math.log1p(config.jitter**2))
        self._fetches: Counter[tuple[AdapterKind, str]] = Counter()
        self._lock = threading.Lock()

    def draw(self, kind: AdapterKind, adapter_id: str, num_bytes: int) -> float:
        """Return the seconds that an adapter's next fetch takes, and count it.

        Args:
            kind: What is fetched.
            adapter_id: Which.
            num_bytes: Size of its files; measured times do not depend on it.
        """
        with self._lock:
            count = self._fetches[kind, adapter_id]
            self._fetches[kind, adapter_id] += 1
        # A string seeds alike in every process; a tuple would go by its hash, which does not.
        generator = random.Random(f"{self._config.seed}/{kind}/{adapter_id}/{count}")
        if self._measured:
            return generator.choice(self._measured[kind]) * self._config.latency_scale
        seconds = self._config.latency_ms / 1000
        if self._config.bandwidth_mb_s is not None:
            seconds += num_bytes / (self._config.bandwidth_mb_s * 1e6)
        return seconds * generator.lognormvariate(-(self._sigma**2) / 2, self._sigma)


def describe_emulation(config: StoreEmulationConfig) -> str | None:
    """Return what tables say of a run with this store, None if nothing is emulated.

    Raises:
        ConfigError: A file of measured times cannot be used.
    """
    files = _measured_files(config)
    if files:
        parts = [f"fetches as measured in {' and '.join(file.file_name for file in files)}"]
        for file in files:
            for kind, times in file.seconds.items():
                parts.append(f"{kind} median {statistics.median(times):.3g} s of {len(times)}")
        if config.latency_scale != 1:
            parts.append(f"all × {config.latency_scale:g}")
        return ", ".join([*parts, f"seed {config.seed}"])
    parts = []
    if config.latency_ms:
        parts.append(f"{config.latency_ms:g} ms latency")
    if config.bandwidth_mb_s is not None:
        parts.append(f"{config.bandwidth_mb_s:g} MB/s")
    if config.jitter:
        parts.append(f"jitter {config.jitter:g} (lognormal, seed {config.seed})")
    return ", ".join(parts) or None


def _measured_files(config: StoreEmulationConfig) -> list[MeasuredTimes]:
    """Return the config's files of measured times: none, one of all kinds, or one of each kind."""
    if config.latency_file is not None:
        return [read_measurements(Path(config.latency_file))]
    by_kind = {"controlnet": config.controlnet_latency_file, "lora": config.lora_latency_file}
    return [
        read_measurements(Path(file), f"{kind}_latency_file", [kind])
        for kind in KINDS
        if (file := by_kind[kind]) is not None
    ]
