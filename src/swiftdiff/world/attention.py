"""Owns what Wan's attention layers do in a pass: with a KV cache, over a sequence of blocks, or as stock.

This is all that depends on the insides of diffusers' Wan transformer; parity tests pin it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformer3DModel,
    _get_qkv_projections,
)
from torch import nn
from torch.nn import functional as F

from swiftdiff.errors import ModelError
from swiftdiff.world.block_sequence import BlockSequence
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.rotary import BlockTurns, rotate


class KeysValues(Protocol):
    """What self-attention asks of a cache; see `BlockKVCache.place`."""

    def place(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, *, keep: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the current block's keys and values beside the past's and return both."""
        ...


#: What the transformer makes of a timestep, [batch, width] and [batch, 6 * width], and of a prompt.
Conditions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class CachedPass:
    """One block through the transformer, the past from a cache.

    Attributes:
        cache: Of the clip, a `BlockKVCache` or what stands for one.
        turns: Rotations of the block's tokens.
        keep: Whether the block's keys and values are to be committed.
        cross: The prompt's keys and values, filled, or None to compute them.
        conditions: What the transformer would make of the timestep and the prompt, or None to compute it.
    """

    cache: KeysValues
    turns: torch.Tensor
    keep: bool
    cross: CrossCache | None
    conditions: Conditions | None = None


# Each thread has its own: two lanes can send two passes through the same weights at the same time.
_under_way: ContextVar[CachedPass | BlockSequence | None] = ContextVar("swiftdiff_world_pass", default=None)


@contextmanager
def under_way(step: CachedPass | BlockSequence) -> Iterator[None]:
    """Let the attention layers that the calling thread runs take part in a pass."""
    token = _under_way.set(step)
    try:
        yield
    finally:
        _under_way.reset(token)


class PassRotary(nn.Module):
    """Takes the place of a transformer's ``rope``: hands its attention layers the pass that is under way.

    Without one it is the stock module, so that a stock pipeline can go on to use the same transformer.

    Args:
        stock: The module that it replaces.
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.stock = stock
        # In a tuple it is no submodule: casting the transformer to half precision must not coarsen positions.
        self._exact = (WanRotaryPosEmbed(stock.attention_head_dim, stock.patch_size, stock.max_seq_len),)
        self._turns: dict[tuple[tuple[int, int, int], torch.device], BlockTurns] = {}

    def forward(self, hidden_states: torch.Tensor) -> Any:
        """Return what the attention layers get as ``rotary_emb``."""
        return _under_way.get() or self.stock(hidden_states)

    def turns(self, grid: tuple[int, int, int], device: torch.device) -> BlockTurns:
        """Return the rotations of blocks of a size.

        Args:
            grid: Tokens of a block in time, height and width.
            device: Where they are used.
        """
        found = self._turns.get((grid, device))
        if found is None:
            found = self._turns[grid, device] = BlockTurns(self._exact[0], grid, device)
        return found


class PassConditions(WanTimeTextImageEmbedding):  # type: ignore[misc]  # diffusers is untyped
    """The class that a transformer's ``condition_embedder`` is given: answers with what a pass brings along.

    Without such a pass it is the stock module; its weights keep their names.
    """

    def forward(
        self,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
        timestep_seq_len: int | None = None,
    ) -> Any:
        """Return what the stock module does: of the time, of the time for each layer, of the prompt, None."""
        step = _under_way.get()
        if isinstance(step, CachedPass) and step.conditions is not None:
            return (*step.conditions, None)
        return super().forward(timestep, encoder_hidden_states, encoder_hidden_states_image, timestep_seq_len)


class BlockSelfAttention(WanAttnProcessor):  # type: ignore[misc]  # diffusers is untyped
    """Self-attention of a block to itself and the past; the stock processor where no pass is under way.

    Args:
        layer: From 0.
    """

    def __init__(self, layer: int) -> None:
        super().__init__()
        self._layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        """Return the layer's output, [batch, tokens, width]."""
        if not isinstance(rotary_emb, (CachedPass, BlockSequence)):
            output: torch.Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
            return output
        query, key, value = _get_qkv_projections(attn, hidden_states, None)
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (_by_head(attn, states) for states in (query, key, value))
        if isinstance(rotary_emb, BlockSequence):
            return _project(attn, rotary_emb.attend(query, key, value))
        query = rotate(query, rotary_emb.turns)
        keys, values = rotary_emb.cache.place(self._layer, key, value, keep=rotary_emb.keep)
        return _project(attn, F.scaled_dot_product_attention(query, keys, values))


class PromptCrossAttention(WanAttnProcessor):  # type: ignore[misc]  # diffusers is untyped
    """Cross-attention to a prompt's ready keys and values, or of each block to its own prompt; else stock.

    Args:
        layer: From 0.
    """

    def __init__(self, layer: int) -> None:
        super().__init__()
        self._layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        """Return the layer's output, [batch, tokens, width].

        Args:
            attn: The layer.
            hidden_states: [batch, tokens, width].
            encoder_hidden_states: [batch, prompt tokens, width], or [batch, blocks, prompt tokens, width].
            attention_mask: None.
            rotary_emb: None.
        """
        if encoder_hidden_states.ndim == 4:
            return self._attend_by_block(attn, hidden_states, encoder_hidden_states)
        step = _under_way.get()
        cross = step.cross if isinstance(step, CachedPass) else None
        if cross is None:
            output: torch.Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
            return output
        query = _by_head(attn, attn.norm_q(attn.to_q(hidden_states)))
        key, value = cross.read(self._layer)
        return _project(attn, F.scaled_dot_product_attention(query, key, value))

    def _attend_by_block(self, attn: Any, hidden_states: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        batch, blocks = prompts.shape[:2]
        rows = hidden_states.reshape(batch * blocks, -1, hidden_states.shape[-1])
        output: torch.Tensor = super().__call__(attn, rows, prompts.flatten(0, 1))
        return output.reshape(hidden_states.shape)


def take_part(transformer: WanTransformer3DModel) -> PassRotary:
    """Give a transformer these processors, conditions and rotary module, once; return the last.

    Raises:
        ModelError: The transformer reads an image beside the prompt.
    """
    if transformer.config.added_kv_proj_dim is not None or transformer.config.image_dim is not None:
        raise ModelError("this Wan transformer is made for image prompts: a world needs a text-to-video one")
    if not isinstance(transformer.rope, PassRotary):
        transformer.rope = PassRotary(transformer.rope)
        # The class alone is another: a module around the stock one would rename its weights.
        transformer.condition_embedder.__class__ = PassConditions
        for layer, block in enumerate(transformer.blocks):
            block.attn1.set_processor(BlockSelfAttention(layer))
            block.attn2.set_processor(PromptCrossAttention(layer))
    return transformer.rope


def prompt_keys_values(
    transformer: WanTransformer3DModel, prompt: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each layer's keys and values of a prompt [batch, tokens, text_dim], for `CrossCache.fill`."""
    embedded = transformer.condition_embedder.text_embedder(prompt)
    layers = []
    for attn in (block.attn2 for block in transformer.blocks):
        _, key, value = _get_qkv_projections(attn, embedded[:, :0], embedded)
        layers.append((_by_head(attn, attn.norm_k(key)), _by_head(attn, value)))
    return layers


def _by_head(attn: Any, states: torch.Tensor) -> torch.Tensor:
    """Return [batch, heads, tokens, head_dim] of [batch, tokens, width]."""
    return states.view(*states.shape[:2], attn.heads, -1).transpose(1, 2)


def _project(attn: Any, attended: torch.Tensor) -> torch.Tensor:
    """Return the layer's output from [batch, heads, tokens, head_dim]."""
    projected: torch.Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
    return projected
