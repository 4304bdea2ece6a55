"""Reads a LoRA from the store into a plan for one model; this is what a loader's threads do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from swiftdiff.adapters.delta_plan import (
    ELEMENTS_AT_ONCE,
    ELEMENTS_AT_ONCE_ON_GPU,
    DeltaPlan,
    build_plan,
)
from swiftdiff.adapters.loading import Loaded
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.store import AdapterStore
from swiftdiff.adapters.transfers import side_stream
from swiftdiff.errors import AdapterError


class LoraReader:
    """Fetches a LoRA, checks it and lays its factors out for a model. Safe on any thread: it reads no weight.

    Args:
        store: Where LoRAs come from.
        model: The layers they change.
        device: Where the model's weights are. For those on a GPU the factors are page-locked on the host.
        keep_on_device: Keep the factors on that GPU instead: they are copied on a stream of their own, beside
            its work, and are there when the read returns.
        expected_sha256: Of the files of LoRAs that must be certain ones, by id.
        clock: Seconds from any moment.
    """

    def __init__(
        self,
        store: AdapterStore,
        model: ModelLayers,
        *,
        device: torch.device | str = "cpu",
        keep_on_device: bool = False,
        expected_sha256: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._model = model
        self._device = torch.device(device)
        self._keep_on_device = keep_on_device
        self._expected_sha256 = expected_sha256 or {}
        self._clock = clock

    def __call__(self, adapter_id: str) -> Loaded[DeltaPlan]:
        """Read one LoRA.

        Raises:
            AdapterError: It is unknown, damaged, made for another base model, or not the expected file.
            StoreUnavailableError: The store does not give it now.
        """
        began = self._clock()
        fetched = self._store.fetch_lora(adapter_id)
        fetched_at = self._clock()
        try:
            self._check_sha256(adapter_id, fetched.path)
            on_gpu = self._device.type == "cuda"
            at_once = ELEMENTS_AT_ONCE_ON_GPU if on_gpu else ELEMENTS_AT_ONCE
            weights = read_lora(fetched.path, adapter_id)
            plan = build_plan(weights, self._model, at_once, as_stored=on_gpu)
        finally:
            self._store.discard(fetched)
        plan = self._placed(plan)
        return Loaded(plan, plan.num_bytes, fetched.num_bytes, fetched_at - began, self._clock() - fetched_at)

    def _check_sha256(self, adapter_id: str, path: Path) -> None:
        expected = self._expected_sha256.get(adapter_id)
        if expected is not None and (found := sha256_of(path)) != expected:
            raise AdapterError(
                f"LoRA {adapter_id!r} is not the one that its k in bal_table was measured with: its SHA-256 "
                f"begins with {found[:12]}, the table's with {expected[:12]}; measure it again with "
                "swiftdiff sweep-k, or take it out of the table, and requests wait for it"
            )

    def _placed(self, plan: DeltaPlan) -> DeltaPlan:
        if self._device.type != "cuda":
            return plan
        pinned = plan.pinned()
        if not self._keep_on_device:
            return pinned
        stream = side_stream(self._device, "copy")
        assert stream is not None
        with torch.cuda.stream(stream):
            moved = pinned.to(self._device, non_blocking=True)
            copied = stream.record_event()
        copied.synchronize()  # holds up this loader thread alone
        return moved


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
