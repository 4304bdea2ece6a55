"""Compiles the transformer blocks of a network, those that are alike once: regional compilation.

It is what diffusers' ``compile_repeated_blocks`` does, for blocks that may be given a prompt's keys and
values.
Compiled code takes the weights as arguments: it sees what is patched in place, and is not compiled again.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from swiftdiff.pipeline.prompt_attention import PromptAttention, PromptKeysValues

Part = TypeVar("Part", bound=nn.Module)


def compile_blocks(part: Part, backend: str = "inductor") -> Part:
    """Return a module that computes what ``part`` does by compiled blocks, from the same weights.

    The first run with a new shape compiles, which takes from seconds to minutes.

    Args:
        part: A network, or a part of one, that went through `prompt_attention.reuse_prompt`.
        backend: Of ``torch.compile``.
    """
    weights = [*part.parameters(), *part.buffers()]
    twin = copy.deepcopy(part, {id(weight): weight for weight in weights})
    position = 0
    for block in twin.modules():
        if not isinstance(block, BasicTransformerBlock):
            continue
        if block.attn2 is not None:
            # A block that knew its position would be code of its own. The hook runs before compiled code.
            block.register_forward_pre_hook(_OwnPrompt(position), with_kwargs=True)
            block.attn2.set_processor(PromptAttention(0))
            position += 1
        block.forward = torch.compile(block.forward, backend=backend)
    return twin


class _OwnPrompt:
    """Gives a block its own keys and values of those of all blocks.

    Args:
        position: Of the block among those that share one `PromptKeysValues`.
    """

    def __init__(self, position: int) -> None:
        self._span = slice(2 * position, 2 * position + 2)

    def __call__(
        self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = named.get("encoder_hidden_states")
        if isinstance(states, PromptKeysValues):
            named = named | {"encoder_hidden_states": PromptKeysValues(states.tensors[self._span])}
        return arguments, named
