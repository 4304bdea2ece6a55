"""Owns the memory of a KV cache: plain on the device, or packed (int8) and fetched (host) layer by layer.

Slots are numbered by `SlotRing`; the first ``n`` of them are in use in a pass, the current block's included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch

from swiftdiff.world.config import CacheConfig
from swiftdiff.world.host_blocks import HostBlocks
from swiftdiff.world.int8 import dequantize_into, quantize
from swiftdiff.world.rotary import BlockTurns, rotate_into
from swiftdiff.world.slots import SlotRing

if TYPE_CHECKING:
    from swiftdiff.world.kv_cache import CacheShape

_SCALE_BYTES = 4


class BlockStore(Protocol):
    """What `BlockKVCache` asks of its memory; shapes are those of its own methods."""

    @property
    def num_bytes(self) -> int:
        """All that is allocated."""
        ...

    def begin(self, ring: SlotRing, turns: BlockTurns) -> torch.Tensor:
        """Begin a pass; return the rotations of the current block."""
        ...

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write the current block as it will be kept."""
        ...

    def place(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the current block beside the past, and return both."""
        ...

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the past and what stands in the current block's slot."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another, for every layer."""
        ...


class LayerViews(NamedTuple):
    """A layer's part of a `DirectStore`, as a pass over the block in the making needs it; views all.

    Attributes:
        keys: Rotated, of the slots in use, [batch, heads, slots * tokens, head_dim].
        values: The same of values.
        raw_slot: The current block's keys before rotation, [batch, heads, tokens, head_dim].
        rotated_slot: The same, rotated.
        values_slot: The same of values.
    """

    keys: torch.Tensor
    values: torch.Tensor
    raw_slot: torch.Tensor
    rotated_slot: torch.Tensor
    values_slot: torch.Tensor

    def write(self, key: torch.Tensor, value: torch.Tensor, turns: torch.Tensor) -> None:
        """Write the current block beside the past."""
        rotate_into(self.rotated_slot, key, turns)
        self.values_slot.copy_(value)


VIEWS_PER_LAYER: Final = len(LayerViews._fields)


class DirectStore:
    """Keys as they were before rotation, keys rotated, and values, all on the device: a read is a view.

    Args:
        shape: Of one block.
        config: Says how many slots there are.
        device: Of the transformer.
        dtype: Of keys and values.

    Attributes:
        raw: Keys before rotation, of each layer, [batch, heads, slots, tokens, head_dim].
        rotated: The same keys, rotated.
        values: Of each layer.
    """

    def __init__(
        self, shape: CacheShape, config: CacheConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        size = (shape.batch, shape.num_heads, config.num_slots + 1, shape.tokens_per_block, shape.head_dim)
        with torch.inference_mode(False):  # so that any thread may write to it
            layers = range(shape.num_layers)
            self.raw = [torch.empty(size, dtype=dtype, device=device) for _ in layers]
            self.rotated = [torch.empty(size, dtype=dtype, device=device) for _ in layers]
            self.values = [torch.empty(size, dtype=dtype, device=device) for _ in layers]
        self._version = 0
        self._look_at(1, 0)

    @staticmethod
    def bytes_for(shape: CacheShape, config: CacheConfig, dtype: torch.dtype) -> int:
        """Return what `num_bytes` will be."""
        return 3 * shape.num_layers * (config.num_slots + 1) * _block_elements(shape) * dtype.itemsize

    @property
    def num_layers(self) -> int:
        """Of the transformer."""
        return len(self.values)

    @property
    def num_bytes(self) -> int:
        """All that is allocated."""
        return sum(tensor.nbytes for tensor in (*self.raw, *self.rotated, *self.values))

    def begin(self, ring: SlotRing, turns: BlockTurns) -> torch.Tensor:
        """Begin a pass; rotate the past again if its positions changed."""
        in_use = ring.num_blocks + 1
        if self._version != ring.version:
            if ring.num_blocks:
                table = turns.at_each(ring.positions())
                for rotated, raw in zip(self.rotated, self.raw, strict=True):
                    rotate_into(rotated[:, :, :in_use], raw[:, :, :in_use], table)
            self._version = ring.version
        if self._looked_at != (in_use, ring.current):
            self._look_at(in_use, ring.current)
        self._own_turns = turns.at(ring.num_blocks)
        return self._own_turns

    def views(self) -> list[torch.Tensor]:
        """Return what a pass that has begun works with, layer by layer as `LayerViews` has it."""
        return [view for views in self._views for view in views]

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write the key as it will be kept; `place` writes the value."""
        self._views[layer].raw_slot.copy_(key)

    def place(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the current block beside the past, and return both."""
        self._views[layer].write(key, value, self._own_turns)
        return self.read(layer)

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return views of the slots in use."""
        return self._views[layer].keys, self._views[layer].values

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another; rotated keys are renewed by the next pass."""
        for tensor in (*self.raw, *self.values):
            tensor[:, :, target].copy_(tensor[:, :, source])

    def _look_at(self, in_use: int, slot: int) -> None:
        """Make the views of a pass with so many slots in use, over the block in one of them."""
        self._looked_at = in_use, slot
        with torch.inference_mode(False):  # so that any thread may write to them
            self._views = [
                LayerViews(
                    _joined(rotated, in_use),
                    _joined(values, in_use),
                    raw[:, :, slot],
                    rotated[:, :, slot],
                    values[:, :, slot],
                )
                for raw, rotated, values in zip(self.raw, self.rotated, self.values, strict=True)
            ]


class StagedStore:
    """Keys before rotation and values, packed or on the host; one layer at a time is made ready for use.

    Args:
        shape: Of one block.
        config: Dtype and storage, and how many slots there are.
        device: Of the transformer.
        dtype: Of keys and values.
    """

    def __init__(
        self, shape: CacheShape, config: CacheConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        slots = config.num_slots + 1
        each = (shape.batch, shape.num_heads, shape.tokens_per_block)
        self._is_packed = config.dtype == "int8"
        kept = torch.int8 if self._is_packed else dtype
        shapes, dtypes = [(slots, *each, shape.head_dim)] * 2, [kept] * 2
        if self._is_packed:
            shapes, dtypes = shapes + [(slots, *each, 1)] * 2, dtypes + [torch.float32] * 2
        with torch.inference_mode(False):  # so that any thread may write to it
            self._host: HostBlocks | None = None
            if config.storage == "host":
                self._host = HostBlocks(shape.num_layers, shapes, dtypes, device)
                self._kept = self._host.tensors
            else:
                self._kept = [
                    torch.empty((shape.num_layers, *size), dtype=kind, device=device)
                    for size, kind in zip(shapes, dtypes, strict=True)
                ]
            work = (shape.batch, shape.num_heads, slots, shape.tokens_per_block, shape.head_dim)
            self._keys = torch.empty(work, dtype=dtype, device=device)
            self._values = torch.empty(work, dtype=dtype, device=device)
        self._in_use = 1
        self._slot = 0
        self._ready: int | None = None  # the layer whose past the work buffers hold
        self._rotated_for: tuple[int, int] | None = None

    @staticmethod
    def bytes_for(shape: CacheShape, config: CacheConfig, dtype: torch.dtype) -> int:
        """Return what `num_bytes` will be."""
        elements, slots = _block_elements(shape), config.num_slots + 1
        layer = 2 * slots * elements * dtype.itemsize
        if config.dtype == "int8":
            layer = 2 * slots * (elements + elements // shape.head_dim * _SCALE_BYTES)
        copies = shape.num_layers + (2 if config.storage == "host" else 0)
        return copies * layer + 2 * slots * elements * dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """All that is allocated."""
        buffers = [] if self._host is None else [tensor for pair in self._host.buffers for tensor in pair]
        return sum(tensor.nbytes for tensor in (*self._kept, *buffers, self._keys, self._values))

    def begin(self, ring: SlotRing, turns: BlockTurns) -> torch.Tensor:
        """Begin a pass; fetch the first layer."""
        self._in_use, self._slot = ring.num_blocks + 1, ring.current
        self._ready = None
        if self._rotated_for != (ring.version, self._in_use):
            self._turns = turns.at_each(ring.positions())
            self._rotated_for = (ring.version, self._in_use)
        if self._host is not None and self._in_use > 1:
            self._host.begin(self._in_use)
        self._own_turns = turns.at(ring.num_blocks)
        return self._own_turns

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write the current block as it will be kept."""
        written = [key, value]
        if self._is_packed:
            packed = (quantize(key), quantize(value))
            written = [numbers for numbers, _ in packed] + [scales for _, scales in packed]
        for tensor, states in zip(self._kept, written, strict=True):
            tensor[layer, self._slot].copy_(states, non_blocking=True)

    def place(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the current block beside the past, and return both."""
        keys, values = self.read(layer)
        rotate_into(self._keys[:, :, self._slot], key, self._own_turns)
        self._values[:, :, self._slot].copy_(value)
        return keys, values

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a layer's past ready, and return views of the slots in use."""
        if self._ready != layer and self._in_use > 1:
            if self._host is not None:
                self._unpack(self._host.take(layer))
                self._host.release(layer)
            else:
                self._unpack([tensor[layer, : self._in_use] for tensor in self._kept])
            self._ready = layer
        return _joined(self._keys, self._in_use), _joined(self._values, self._in_use)

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another."""
        if self._host is not None:
            self._host.finish_writes()
        for tensor in self._kept:
            tensor[:, target].copy_(tensor[:, source])

    def _unpack(self, kept: list[torch.Tensor]) -> None:
        """Write a layer's [slots, batch, heads, tokens, ...] to the work buffers, its keys rotated."""
        work_keys, work_values = self._keys[:, :, : self._in_use], self._values[:, :, : self._in_use]
        keys, values, *scales = (tensor.permute(1, 2, 0, 3, 4) for tensor in kept)
        if scales:
            dequantize_into(work_keys, keys, scales[0])
            dequantize_into(work_values, values, scales[1])
            rotate_into(work_keys, work_keys, self._turns)
        else:
            rotate_into(work_keys, keys, self._turns)
            work_values.copy_(values)


def _block_elements(shape: CacheShape) -> int:
    """Return the numbers in the keys of one block and layer."""
    return math.prod((shape.batch, shape.num_heads, shape.tokens_per_block, shape.head_dim))


def _joined(tensor: torch.Tensor, slots: int) -> torch.Tensor:
    """Return the first slots of [batch, heads, slots, tokens, head_dim] with their tokens in one row; a view,
    or an error.
    """
    batch, heads, _, tokens, width = tensor.shape
    return tensor[:, :, :slots].view(batch, heads, slots * tokens, width)
