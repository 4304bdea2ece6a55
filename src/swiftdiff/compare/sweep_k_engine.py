"""Runs the engine for a sweep of k: a LoRA patched at exactly one step, or arriving after a load time.

Both go through the engine's own bounded asynchronous loading. Only the store is special: it can hold a LoRA
back until the step before the bound has begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from swiftdiff.adapters.bal import RequestBound
from swiftdiff.adapters.emulation import FetchTimes
from swiftdiff.adapters.lora_loading import sha256_of
from swiftdiff.adapters.store import AdapterStore, FetchedAdapter
from swiftdiff.config import ServingConfig, StoreEmulationConfig
from swiftdiff.errors import AdapterError, SwiftdiffError
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import resolve_model
from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.request import AdapterRecord, ImageRequest
from swiftdiff.systems.base import Exactness

with quiet_libraries():
    from swiftdiff.systems.swiftdiff import SwiftdiffSystem

_PATIENCE_S = 3600.0  # a request that takes longer to reach its bound is stuck


@dataclass(frozen=True)
class Drawn:
    """How one request with one LoRA went.

    Attributes:
        picture: Its picture.
        latency_s: Seconds from its arrival at the idle system to the picture.
        wait_s: Of these, seconds for which it stood still for the LoRA.
        restore_s: Seconds to take the LoRA out again.
        load_s: Seconds from the arrival until the LoRA was ready.
        step_patched: First step with it.
    """

    picture: Image
    latency_s: float
    wait_s: float
    restore_s: float
    load_s: float
    step_patched: int


class SweepStore(AdapterStore):
    """A store whose LoRAs take an emulated time, or come when they are let through.

    Args:
        url: Of the store.
        emulate: The emulated time. It depends on the turn alone, so that every k meets the same times.
    """

    def __init__(self, url: str, emulate: StoreEmulationConfig) -> None:
        super().__init__(url)
        self._emulate = emulate
        self._gate = threading.Event()
        self._turn: int | None = None

    def hold(self) -> None:
        """Let no LoRA through until `release`; then the fetch takes what it takes, and no emulated time."""
        self._turn = None
        self._gate.clear()

    def release(self) -> None:
        """Let LoRAs through."""
        self._gate.set()

    def delay(self, turn: int) -> None:
        """Let LoRAs take the emulated time of one turn."""
        self._turn = turn
        self._gate.set()

    def fetch_lora(self, adapter_id: str) -> FetchedAdapter:
        """Bring a LoRA to the local disk, late; see `AdapterStore.fetch_lora`."""
        turn = self._turn
        if not self._gate.wait(_PATIENCE_S):
            raise AdapterError(f"LoRA {adapter_id!r} was not let through: its request did not get that far")
        fetched = super().fetch_lora(adapter_id)
        if turn is not None:
            emulate = self._emulate.model_copy(update={"seed": self._emulate.seed + turn})
            time.sleep(FetchTimes(emulate).draw("lora", adapter_id, fetched.num_bytes))
        return fetched


class SweptBounds:
    """A bound that is set from request to request; see `BalBounds`."""

    exactness: Exactness = "approximate"

    def __init__(self) -> None:
        self.expected_sha256: Mapping[str, str] = {}
        self.k = 0
        self.weights_sha256 = ""

    def check_model(self, networks: Mapping[str, Any]) -> None:
        """Note the weights."""
        self.weights_sha256 = weights_digest(networks)

    def bound_of(self, request: ImageRequest) -> RequestBound:
        """Return what was set."""
        return RequestBound(self.k)


class SweepEngine:
    """The engine with a store and a bound that the sweep controls. Close it.

    Args:
        config: The system; it keeps no LoRA between requests and prefetches.
        emulate: What LoRAs' loading takes in `serve_delayed`.

    Raises:
        ModelError: The model cannot be used.
        AdapterError: There is no adapter store.
    """

    def __init__(self, config: ServingConfig, emulate: StoreEmulationConfig) -> None:
        self._store = open_sweep_store(config, emulate)
        self._bounds = SweptBounds()
        self._boundaries = 0
        self._opens_at = 0
        self._system = SwiftdiffSystem(config, store=self._store, bounds=self._bounds)
        self._system.watch(self._look_ahead)
        self._system.warm_up()

    @property
    def weights_sha256(self) -> str:
        """Of the model, without LoRAs."""
        return self._bounds.weights_sha256

    def lora_sha256(self, lora: str) -> str:
        """Return the SHA-256 of a LoRA's file.

        Raises:
            AdapterError: The store does not give it.
        """
        self._store.hold()
        self._store.release()
        fetched = self._store.fetch_lora(lora)
        try:
            return sha256_of(fetched.path)
        finally:
            self._store.discard(fetched)

    def serve_patched_at(self, request: ImageRequest, k: int, images_root: Path) -> Drawn:
        """Serve a request whose LoRA comes just before step ``k``.

        Raises:
            SwiftdiffError: The request cannot be served.
        """
        self._store.hold()
        # The engine looks ahead once when a request begins, and before each step when it has patched.
        self._boundaries, self._opens_at = 0, k + 1
        if k == 0:
            self._store.release()
        drawn = self._serve(request, k, images_root)
        if drawn.step_patched != k:
            raise RuntimeError(f"the LoRA was patched at step {drawn.step_patched} instead of {k}")
        return drawn

    def serve_delayed(self, request: ImageRequest, k: int, images_root: Path, turn: int) -> Drawn:
        """Serve a request whose LoRA takes the emulated time of one turn, and for which step ``k`` waits.

        Raises:
            SwiftdiffError: The request cannot be served.
        """
        self._store.delay(turn)
        return self._serve(request, k, images_root)

    def close(self) -> None:
        """End the engine."""
        self._store.release()
        self._system.close()

    def _look_ahead(self, limit: int) -> Sequence[ImageRequest]:
        self._boundaries += 1
        if self._boundaries >= self._opens_at:
            self._store.release()
        return ()

    def _serve(self, request: ImageRequest, k: int, images_root: Path) -> Drawn:
        self._bounds.k = k
        began = time.perf_counter()
        try:
            served = self._system.serve(request, images_root)
            images = served.images() if callable(served.images) else served.images
            latency_s = time.perf_counter() - began
        finally:
            self._store.release()  # a request that failed must not leave a thread waiting
            ended = time.perf_counter()
            self._system.finish()
        restore_s = time.perf_counter() - ended
        (record,) = (each for each in served.adapters if each.kind == "lora")
        wait_s = served.stages.get("lora_wait", 0.0)
        return Drawn(images[0], latency_s, wait_s, restore_s, record.load_s, _step(record))


def open_sweep_store(config: ServingConfig, emulate: StoreEmulationConfig) -> SweepStore:
    """Return the store of a config for a sweep.

    Raises:
        AdapterError: There is none, or fsspec does not know its URL.
    """
    url = config.adapters.url or resolve_model(config.model).adapter_url
    if url is None:
        raise AdapterError(f"model {config.model!r} has no LoRAs of its own, and no adapter store is named")
    return SweepStore(url, emulate)


def _step(record: AdapterRecord) -> int:
    if record.step_patched is None:
        raise SwiftdiffError(f"LoRA {record.id!r} was not patched")
    return record.step_patched
