"""Owns the way of blocks from host memory to the device: a layer is fetched while the one before computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class HostBlocks:
    """Host memory for every layer, and two device buffers that take turns.

    On a GPU the memory is pinned and the copies run on a stream of their own. On a CPU there is no other
    memory to fetch from: the copies are made at once, and storage on the host only costs.

    Args:
        num_layers: Of the transformer.
        shapes: Of one layer's tensors; the first dimension counts slots.
        dtypes: Of these tensors.
        device: Where layers are used.

    Attributes:
        tensors: The host's, [layers, slots, ...] each.
        buffers: The device's, [slots, ...] each.
    """

    def __init__(
        self,
        num_layers: int,
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[torch.dtype],
        device: torch.device,
    ) -> None:
        on_gpu = device.type == "cuda"
        kinds = list(zip(shapes, dtypes, strict=True))
        self.tensors = [
            torch.empty((num_layers, *shape), dtype=dtype, pin_memory=on_gpu) for shape, dtype in kinds
        ]
        self.buffers = tuple(
            [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in kinds] for _ in range(2)
        )
        self._num_layers = num_layers
        self._num_slots = 0
        self._device = device
        self._stream = _new_stream(device) if on_gpu else None
        self._holds: list[int | None] = [None, None]
        self._arrived: list[torch.cuda.Event | None] = [None, None]
        self._released: list[torch.cuda.Event | None] = [None, None]

    def begin(self, num_slots: int) -> None:
        """Begin a pass: fetch the first layer.

        Args:
            num_slots: How many slots, from the first, the pass uses.
        """
        self._num_slots = num_slots
        self._holds = [None, None]
        if self._stream is not None:  # what was written to the host, and what still reads the buffers
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            self._released = [None, None]
        self._fetch(0)

    def take(self, layer: int) -> list[torch.Tensor]:
        """Return a layer's tensors on the device, [slots in use, ...]; good until `release`."""
        turn = layer % 2
        if self._holds[turn] != layer:
            self._fetch(layer)
        arrived = self._arrived[turn]
        if arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(arrived)
        if layer + 1 < self._num_layers:
            self._fetch(layer + 1)
        return [buffer[: self._num_slots] for buffer in self.buffers[turn]]

    def release(self, layer: int) -> None:
        """Let a layer's buffer be filled anew, once what is queued has read it."""
        if self._stream is not None:
            self._released[layer % 2] = torch.cuda.current_stream(self._device).record_event()

    def finish_writes(self) -> None:
        """Wait until the host's tensors hold what was written to them; only then may a CPU read them."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).synchronize()

    def _fetch(self, layer: int) -> None:
        turn = layer % 2
        if self._holds[turn] == layer:
            return
        released = self._released[turn]
        if self._stream is not None and released is not None:
            self._stream.wait_event(released)
        with torch.cuda.stream(self._stream):
            for buffer, tensor in zip(self.buffers[turn], self.tensors, strict=True):
                source = tensor[layer, : self._num_slots]
                buffer[: self._num_slots].copy_(source, non_blocking=True)
            if self._stream is not None:
                self._arrived[turn] = self._stream.record_event()
        self._holds[turn] = layer


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    make: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    return make(device)
