"""Owns how bytes come to GPUs, and what runs beside their other work: side streams, pinned memory used again.

On the CPU there are no streams and nothing to copy: what is here then does nothing, or copies at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from swiftdiff.adapters.delta_plan import DeltaGroup, DeltaPlan

_STAGING_BYTES = 64 * 2**20  # a piece takes a few milliseconds: enough to hide the start of each copy
_ARENA_BYTES = 256 * 2**20
_ALIGNMENT = 512

_streams: dict[tuple[torch.device, str], torch.cuda.Stream] = {}
_streams_lock = threading.Lock()


def side_stream(device: torch.device, purpose: str) -> torch.cuda.Stream | None:
    """Return a GPU's stream for a purpose, each time the same; None on the CPU.

    Torch has 32 streams of each priority a device and hands them out in turn: were there a new one for every
    copy, one would soon be a lane's, and copies would land in the graphs that the lane captures. These are of
    the high priority, lanes' of the low.
    """
    if device.type != "cuda":
        return None
    with _streams_lock:
        if (device, purpose) not in _streams:
            _streams[device, purpose] = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        return _streams[device, purpose]


@contextmanager
def beside(device: torch.device, purpose: str) -> Iterator[None]:
    """Run a block on a stream of its own: after what the caller's has queued, before what it queues next.

    Args:
        device: Where the block computes.
        purpose: As for `side_stream`.
    """
    stream = side_stream(device, purpose)
    if stream is None:
        yield
        return
    callers = torch.cuda.current_stream(device)
    stream.wait_stream(callers)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:  # also after an error: weights may have been written
        callers.wait_stream(stream)


class ArrivingFactors:
    """LoRAs' factors on their way to a device, so that the first are multiplied while the others come.

    Used by one thread, on one stream.

    Args:
        device: Where they are needed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = side_stream(device, "factors")  # not behind a ControlNet on its way
        self._coming: dict[DeltaGroup, tuple[DeltaGroup, torch.cuda.Event | None]] = {}

    def start(self, plan: DeltaPlan, components: frozenset[str]) -> None:
        """Begin to copy what a plan changes in some components, in its order."""
        if self._stream is None:
            return
        with torch.cuda.stream(self._stream):
            for group in plan.groups:
                if group.targets[0].component in components and group not in self._coming:
                    moved = group.mapped(lambda factor: factor.to(self._device, non_blocking=True))
                    self._coming[group] = (moved, self._stream.record_event())

    def get(self, group: DeltaGroup) -> DeltaGroup:
        """Return a group with its factors on the device, widened to float32, ready for the current stream."""
        if self._stream is None:
            return group.mapped(lambda factor: factor.to(self._device)).widened()
        if group not in self._coming:
            moved = group.mapped(lambda factor: _used_here(factor.to(self._device, non_blocking=True)))
            return moved.widened()
        moved, event = self._coming[group]
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
            moved.mapped(_used_here)
            self._coming[group] = (moved, None)
        return moved.widened()


class StagedCopies:
    """Copies ordinary host memory to a device through pinned buffers that are used in turn.

    So copies run beside the device's work without page-locking all that is on the host. Safe to share between
    threads, which take turns.

    Args:
        device: Where to.
        num_bytes: Of each buffer.
        num_buffers: One is filled while the others are on their way.
    """

    def __init__(self, device: torch.device, num_bytes: int = _STAGING_BYTES, num_buffers: int = 2) -> None:
        self._device = device
        self._stream = side_stream(device, "copy")
        self._num_bytes = num_bytes
        self._num_buffers = num_buffers
        self._buffers: list[torch.Tensor] = []
        self._busy: list[torch.cuda.Event | None] = [None] * num_buffers
        self._next = 0
        self._lock = threading.Lock()

    def copy(self, source: torch.Tensor) -> torch.Tensor:
        """Return a copy on the device, with the same strides; `wait` before it is used elsewhere."""
        if source.device.type != "cpu":
            with beside(self._device, "copy"):
                return source.to(self._device, copy=True)
        with self._lock, torch.cuda.stream(self._stream):
            if not _is_dense(source):
                return source.to(self._device, copy=True)
            target = torch.empty_strided(
                source.shape, source.stride(), dtype=source.dtype, device=self._device
            )
            from_, to = _bytes_of(source), _bytes_of(target)
            for at in range(0, source.nbytes, self._num_bytes):
                self._copy_piece(from_[at : at + self._num_bytes], to[at : at + self._num_bytes])
        return target

    def wait(self) -> None:
        """Return when all copies have arrived; holds up the calling thread alone."""
        if self._stream is not None:
            self._stream.synchronize()

    def _copy_piece(self, source: torch.Tensor, target: torch.Tensor) -> None:
        if not self._buffers:
            is_pinned = self._stream is not None
            self._buffers = [_host_bytes(self._num_bytes, is_pinned) for _ in range(self._num_buffers)]
        number, self._next = self._next, (self._next + 1) % self._num_buffers
        busy = self._busy[number]
        if busy is not None:
            busy.synchronize()
        piece = self._buffers[number][: len(source)]
        piece.copy_(source)
        target.copy_(piece, non_blocking=True)
        if self._stream is not None:
            self._busy[number] = self._stream.record_event()


class HostArena:
    """Host memory for copies that stay, cut from large pieces.

    To page-lock each tensor alone takes the driver milliseconds, and torch rounds its size up to a power of
    two.

    Args:
        is_pinned: Page-lock it, for GPUs.
        num_bytes: Of a piece; a larger tensor gets one of its size.
    """

    def __init__(self, *, is_pinned: bool, num_bytes: int = _ARENA_BYTES) -> None:
        self._is_pinned = is_pinned
        self._num_bytes = num_bytes
        self._piece = _host_bytes(0, is_pinned=False)
        self._used = 0

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory of a tensor's shape, type and strides; the tensor must be dense."""
        if self._used + tensor.nbytes > len(self._piece):
            size = max(self._num_bytes, tensor.nbytes)
            self._piece = _host_bytes(size, self._is_pinned)
            self._used = 0
        begin, end = self._used, self._used + tensor.nbytes
        self._used += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        with torch.inference_mode(False):
            flat = self._piece[begin:end].view(tensor.dtype)
            return flat.as_strided(tensor.shape, tensor.stride())


def _host_bytes(num_bytes: int, is_pinned: bool) -> torch.Tensor:
    with torch.inference_mode(False):  # else it could not be written to outside of that mode
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_pinned)


def _used_here(factor: torch.Tensor) -> torch.Tensor:
    """Keep a factor's memory until the current stream has used it: it was made for another's."""
    factor.record_stream(torch.cuda.current_stream(factor.device))
    return factor


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a dense tensor's memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).view(torch.uint8)
