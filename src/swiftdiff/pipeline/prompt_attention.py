"""Lets cross-attention take the prompt's keys and values ready-made, for they are the same at every step.

Together with `split_unet` this is all that depends on the insides of diffusers; parity tests pin both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn
from torch.nn import functional as F

from swiftdiff.errors import ModelError


class PromptKeysValues:
    """Stands for the prompt where diffusers hands ``encoder_hidden_states`` down to its attention layers.

    Args:
        tensors: Key and value of each cross-attention layer in turn, [images, heads, tokens, width per head].
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = tensors


class PromptAttention(AttnProcessor2_0):  # type: ignore[misc]  # diffusers is untyped
    """Stock cross-attention that skips ``to_k`` and ``to_v`` if it is given `PromptKeysValues`.

    Given embeddings it is the stock processor, so a stock pipeline can go on to use the same model.

    Args:
        position: Of its layer among those that share one `PromptKeysValues`.
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        self._position = position

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | PromptKeysValues | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return what the stock processor returns, bit for bit."""
        if not isinstance(encoder_hidden_states, PromptKeysValues):
            output: torch.Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
            return output
        key, value = encoder_hidden_states.tensors[2 * self._position : 2 * self._position + 2]
        query = split_heads(attn, attn.to_q(hidden_states))
        output = F.scaled_dot_product_attention(query, key, value, dropout_p=0.0, is_causal=False)
        output = output.transpose(1, 2).flatten(2)
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](output))
        return projected


def reuse_prompt(module: nn.Module) -> tuple[Any, ...]:
    """Make a module's cross-attention layers accept `PromptKeysValues`; return them in its order.

    Raises:
        ModelError: A layer does more than SDXL's and SD 1.5's do, so its keys and values cannot be reused.
    """
    blocks = [block for block in module.modules() if isinstance(block, BasicTransformerBlock)]
    layers = [block.attn2 for block in blocks if block.attn2 is not None]
    for position, layer in enumerate(layers):
        _check_plain(layer)
        layer.set_processor(PromptAttention(position))
    return tuple(layers)


def compute_keys_values(layers: Sequence[Any], embeddings: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each layer's key and value of a prompt: `PromptKeysValues` until weights or prompt change.

    Args:
        layers: What `reuse_prompt` returned.
        embeddings: The encoded prompt, [images, tokens, width].
    """
    return tuple(
        split_heads(layer, projection(embeddings))
        for layer in layers
        for projection in (layer.to_k, layer.to_v)
    )


def split_heads(attn: Any, states: torch.Tensor) -> torch.Tensor:
    """Return states by head.

    Args:
        attn: Has the number of ``heads``.
        states: [images, tokens, width].

    Returns:
        [images, heads, tokens, width per head].
    """
    rows, tokens, width = states.shape
    return states.view(rows, tokens, attn.heads, width // attn.heads).transpose(1, 2)


def is_plain_attention(layer: Any) -> bool:
    """Tell whether a layer is attention as SDXL and SD 1.5 have it, and nothing more."""
    extras = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    plain = isinstance(layer, Attention) and isinstance(layer.processor, AttnProcessor2_0)
    plain = plain and not any(getattr(layer, extra) for extra in extras)
    return plain and not layer.residual_connection and layer.rescale_output_factor == 1.0


def _check_plain(layer: Any) -> None:
    if not is_plain_attention(layer):
        raise ModelError(
            "this model's cross-attention is not the plain kind of SDXL and SD 1.5 (it has norms, a residual "
            f"or another processor, {type(layer.processor).__name__}): serve it with engine diffusers"
        )
