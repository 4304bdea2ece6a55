"""Reads a LoRA from the store into a plan for one model; this is what a loader's threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from swiftdiff.adapters.delta_plan import DeltaPlan, build_plan
from swiftdiff.adapters.loading import Loaded
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.store import AdapterStore


class LoraReader:
    """Fetches a LoRA, checks it and lays its factors out for a model. Safe on any thread: it reads no weight.

    Args:
        store: Where LoRAs come from.
        model: The layers they change.
        device: Where the model's weights are. For those on a GPU the factors are page-locked on the host.
        keep_on_device: Keep the factors on that GPU instead: they are copied on a stream of their own, beside
            its work, and are there when the read returns.
        clock: Seconds from any moment.
    """

    def __init__(
        self,
        store: AdapterStore,
        model: ModelLayers,
        *,
        device: torch.device | str = "cpu",
        keep_on_device: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._model = model
        self._device = torch.device(device)
        self._keep_on_device = keep_on_device
        self._clock = clock

    def __call__(self, adapter_id: str) -> Loaded[DeltaPlan]:
        """Read one LoRA.

        Raises:
            AdapterError: It is unknown, damaged, or made for another base model.
            StoreUnavailableError: The store does not give it now.
        """
        began = self._clock()
        fetched = self._store.fetch_lora(adapter_id)
        fetched_at = self._clock()
        try:
            plan = build_plan(read_lora(fetched.path, adapter_id), self._model)
        finally:
            self._store.discard(fetched)
        plan = self._placed(plan)
        return Loaded(plan, plan.num_bytes, fetched.num_bytes, fetched_at - began, self._clock() - fetched_at)

    def _placed(self, plan: DeltaPlan) -> DeltaPlan:
        if self._device.type != "cuda":
            return plan
        pinned = plan.pinned()
        if not self._keep_on_device:
            return pinned
        stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            moved = pinned.to(self._device, non_blocking=True)
        stream.synchronize()  # holds up this loader thread alone
        return moved
