"""Decides what each block of a sequence may see: the engine's rules without a cache, and differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from swiftdiff.world.config import CacheConfig
from swiftdiff.world.rotary import BlockTurns, rotate


@dataclass(frozen=True)
class BlockSequence:
    """Clean blocks of a clip, in order, and after them noisy ones.

    Every block sees itself and, of the clean blocks before it, those that the cache would hold when the
    engine makes it. Without a mask, attention is computed for one block at a time over what it sees, and
    nothing in vain; with one, for all blocks in one call, as stock attention would be used.

    Attributes:
        num_clean: Clean blocks; the first is the clip's block 0.
        noisy: The place in the clip of each noisy block.
        tokens: Of one block.
        turns: Rotations of blocks of this size.
        config: Which of the past a block sees; None is all.
        mask: What `make_mask` returned, or None.
    """

    num_clean: int
    noisy: Sequence[int]
    tokens: int
    turns: BlockTurns
    config: CacheConfig | None
    mask: torch.Tensor | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """The place in the clip of each block."""
        return (*range(self.num_clean), *self.noisy)

    def make_mask(self, device: torch.device) -> torch.Tensor | None:
        """Return which token sees which, [tokens, tokens] of all blocks.

        It is None where a block sees sinks apart from its window: their distance to each block is another,
        which no rotation of theirs gives to all.
        """
        seen = torch.eye(len(self.places), dtype=torch.bool)
        for index, place in enumerate(self.places):
            sinks, first = self._visible(place)
            if sinks:
                return None
            seen[index, first:place] = True
        return seen.repeat_interleave(self.tokens, 0).repeat_interleave(self.tokens, 1).to(device)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return attention's output, [batch, heads, tokens, head_dim].

        Args:
            query: Not rotated, [batch, heads, tokens of all blocks, head_dim].
            key: The same.
            value: The same.
        """
        table = self.turns.at_each(self.places).flatten(0, 1)
        query, turned = rotate(query, table), rotate(key, table)
        if self.mask is not None:
            return F.scaled_dot_product_attention(query, turned, value, attn_mask=self.mask)
        outputs = []
        for index, place in enumerate(self.places):
            own = self._rows(index, index + 1)
            sinks, first = self._visible(place)
            # What lies side by side is read as it lies: a block that follows its own past directly.
            rows = [self._rows(first, place + 1)] if index == place else [self._rows(first, place), own]
            keys, values = [turned[:, :, each] for each in rows], [value[:, :, each] for each in rows]
            if sinks:
                keys.append(self._sink_keys(key, place, sinks, first))
                values.append(value[:, :, self._rows(0, sinks)])
            outputs.append(F.scaled_dot_product_attention(query[:, :, own], _cat(keys), _cat(values)))
        return torch.cat(outputs, dim=2)

    def _visible(self, place: int) -> tuple[int, int]:
        """Return how many sinks a block sees apart from the window, and the first block of its window."""
        config = self.config
        if config is None or config.policy == "full" or place <= config.num_slots:
            return 0, 0
        return config.num_slots - config.window_blocks, place - config.window_blocks

    def _sink_keys(self, key: torch.Tensor, place: int, sinks: int, first: int) -> torch.Tensor:
        """Return the sinks' keys, rotated as if they stood right before the window."""
        shifted = self.turns.at_each(range(first - sinks, first)).flatten(0, 1)
        return rotate(key[:, :, self._rows(0, sinks)], shifted)

    def _rows(self, first: int, end: int) -> slice:
        return slice(first * self.tokens, end * self.tokens)


def _cat(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
