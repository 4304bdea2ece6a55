"""Owns a clip's KV cache: which blocks of the past are kept, in memory that is allocated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from swiftdiff.errors import ConfigError
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.kv_stores import BlockStore, DirectStore, StagedStore
from swiftdiff.world.rotary import BlockTurns
from swiftdiff.world.slots import SlotRing

if TYPE_CHECKING:
    from swiftdiff.world.loading import WorldModel


@dataclass(frozen=True)
class CacheShape:
    """Of what one block leaves in a cache.

    Attributes:
        num_layers: Of the transformer.
        num_heads: Of its self-attention.
        head_dim: Channels of a head.
        tokens_per_block: Tokens of ``frames_per_block`` latent frames.
        batch: Clips side by side.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    tokens_per_block: int
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "head_dim", "tokens_per_block", "batch"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError.for_field(name, value, "1 or more", where="KV cache")

    @staticmethod
    def of(model: WorldModel, batch: int = 1) -> CacheShape:
        """Return the shape of a world's blocks.

        Args:
            model: What `load_world` returned.
            batch: Clips side by side.
        """
        return model.causal.cache_shape((batch, *model.settings.block_shape[1:]))


class BlockKVCache:
    """Keys and values of a clip's past blocks, for every layer.

    All memory is taken when the cache is made: a slot for each kept block, and one for the block in the
    making, whose keys and values lie right beside the past's, so that attention reads one range and nothing
    is concatenated. Keys are kept as they were before rotation. Their rotated copies, by positions relative
    to the window, are renewed when those positions change, once a block and not once a step; int8 and host
    storage rotate each layer as they unpack it.

    A pass is `begin`, then `place` for each layer. What it places is forgotten by the next pass, unless it
    was placed with ``keep`` and then `commit` was called: a pass that fails leaves the past as it was.

    A cache belongs to one thread at a time.

    Args:
        shape: Of one block.
        config: Policy, dtype and storage.
        device: Of the transformer.
        dtype: Of the transformer's keys and values.

    Raises:
        ConfigError: There is not enough memory.
    """

    def __init__(
        self, shape: CacheShape, config: CacheConfig, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.config = config
        self._ring = SlotRing(config)
        self._kept: set[int] = set()  # layers that were placed to be kept, in this pass
        kind = _store_class(config)
        try:
            self._store: BlockStore = kind(shape, config, torch.device(device), dtype)
        except RuntimeError as error:  # torch's way of saying that memory is out
            needed = self.bytes_for(shape, config, dtype) / 1e6
            raise ConfigError(
                f"a KV cache of {needed:.0f} MB cannot be allocated on {device}: keep fewer blocks "
                "(cache.window_blocks, cache.max_blocks) or use cache.dtype int8"
            ) from error

    @classmethod
    def bytes_for(cls, shape: CacheShape, config: CacheConfig, dtype: torch.dtype) -> int:
        """Return what `bytes` of such a cache will be, without allocating it."""
        return _store_class(config).bytes_for(shape, config, dtype)

    @property
    def bytes(self) -> int:
        """Memory for keys and values, in bytes: all of it, rotated copies and work buffers too."""
        return self._store.num_bytes

    @property
    def num_blocks(self) -> int:
        """Blocks of the past that are kept now."""
        return self._ring.num_blocks

    @property
    def num_committed(self) -> int:
        """Blocks that were committed since the cache was made or cleared."""
        return self._ring.num_committed

    def check_room(self) -> None:
        """Check that one more block can be made and kept.

        Raises:
            RequestError: The policy is ``full`` and the clip has ``max_blocks`` already.
        """
        self._ring.check_room()

    def begin(self, turns: BlockTurns) -> torch.Tensor:
        """Begin a pass over the block in the making.

        Args:
            turns: Rotations by position, on the cache's device.

        Returns:
            The rotations of the block itself, [tokens, head_dim / 2].

        Raises:
            ConfigError: The cache keeps more blocks than the model has positions.
        """
        self._kept.clear()
        return self._store.begin(self._ring, turns)

    def place(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, *, keep: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the current block's keys and values beside the past's and return both, for attention.

        Args:
            layer: From 0, in order.
            key: Not rotated, [batch, heads, tokens, head_dim].
            value: [batch, heads, tokens, head_dim].
            keep: Write what `commit` needs.

        Returns:
            Keys, rotated, and values: [batch, heads, (blocks + 1) * tokens, head_dim], views of the cache's
            memory that are good until the next layer is placed.
        """
        placed = self._store.place(layer, key, value)
        if keep:  # now: on a GPU a fetch of this layer, which may be under way until then, reads the slot too
            self._store.keep(layer, key, value)
            self._kept.add(layer)
        return placed

    @property
    def plain(self) -> DirectStore | None:
        """The memory, if it is plain tensors on the device, which a pass may write itself; see `kept_all`."""
        return self._store if isinstance(self._store, DirectStore) else None

    def kept_all(self) -> None:
        """Note that a pass has written every layer of the current block as it will be kept."""
        self._kept.update(range(self.shape.num_layers))

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's rotated keys and values of the past, and whatever stands in the current block's
        slot: [batch, heads, (blocks + 1) * tokens, head_dim], in the order of slots; see `place`.
        """
        return self._store.read(layer)

    def commit(self) -> None:
        """Make the block in the making part of the past; the oldest leaves if there is no room for both.

        Raises:
            RequestError: The policy is ``full`` and the clip has ``max_blocks`` already.
            RuntimeError: The pass did not place every layer with ``keep``.
        """
        if len(self._kept) != self.shape.num_layers:
            raise RuntimeError(
                f"{len(self._kept)} of {self.shape.num_layers} layers were kept: not a whole pass"
            )
        self._ring.commit()
        self._kept.clear()

    def evict(self) -> None:
        """Forget the oldest block of the past that is no sink.

        Raises:
            RequestError: There is none.
        """
        move = self._ring.evict()
        if move is not None:
            self._store.move(*move)
        self._kept.clear()

    def clear(self) -> None:
        """Forget the whole past; the memory stays."""
        self._ring.clear()
        self._kept.clear()


def _store_class(config: CacheConfig) -> type[DirectStore] | type[StagedStore]:
    is_direct = config.dtype == "native" and config.storage == "device"
    return DirectStore if is_direct else StagedStore
