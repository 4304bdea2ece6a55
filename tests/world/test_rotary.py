"""Rotations against the stock module and the stock attention's formula."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor

from swiftdiff.errors import ConfigError
from swiftdiff.world.rotary import BlockTurns, rotate, rotate_into

CPU = torch.device("cpu")
GRID = (3, 4, 5)
TOKENS = 60
WIDTH = 32  # of a multiple of 32 channels the CPU's rounding is stock's


def make_turns() -> tuple[WanRotaryPosEmbed, BlockTurns]:
    stock = WanRotaryPosEmbed(WIDTH, (1, 2, 2), 32)
    return stock, BlockTurns(stock, GRID, CPU)


def stock_rotation(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As WanAttnProcessor does it, [batch, tokens, heads, width]."""
    x1, x2 = states.unflatten(-1, (-1, 2)).unbind(-1)
    out = torch.empty_like(states)
    out[..., 0::2] = x1 * cos[..., 0::2] - x2 * sin[..., 1::2]
    out[..., 1::2] = x1 * sin[..., 1::2] + x2 * cos[..., 0::2]
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_rotated_as_stock_rotates_the_whole_clip(dtype: torch.dtype) -> None:
    stock, turns = make_turns()
    states = torch.randn(2, 3 * TOKENS, 2, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    cos, sin = stock(torch.empty(1, 1, 9, 8, 10))
    expected = stock_rotation(states, cos, sin)
    for position in range(3):
        rows = slice(position * TOKENS, (position + 1) * TOKENS)
        actual = rotate(states[:, rows].transpose(1, 2), turns.at(position)).transpose(1, 2)
        assert torch.equal(actual, expected[:, rows])
    together = rotate(states.transpose(1, 2), turns.at_each(range(3)).flatten(0, 1)).transpose(1, 2)
    assert torch.equal(together, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotating_into_memory_equals_rotating_also_in_place(dtype: torch.dtype) -> None:
    _, turns = make_turns()
    states = torch.randn(2, 2, TOKENS, WIDTH).to(dtype)
    expected = rotate(states, turns.at(2))
    memory = torch.empty(2, 2, 4, TOKENS, WIDTH, dtype=dtype)
    rotate_into(memory[:, :, 1], states, turns.at(2))
    assert torch.equal(memory[:, :, 1], expected)
    rotate_into(states, states, turns.at(2))
    assert torch.equal(states, expected)


def test_only_the_distance_of_two_blocks_counts() -> None:
    _, turns = make_turns()
    query, key = torch.randn(2, TOKENS, WIDTH).double().float()
    near = rotate(query, turns.at(1)) @ rotate(key, turns.at(0)).T
    far = rotate(query, turns.at(9)) @ rotate(key, turns.at(8)).T
    assert torch.allclose(near, far, atol=1e-5)
    assert not torch.allclose(near, rotate(query, turns.at(2)) @ rotate(key, turns.at(0)).T, atol=1e-2)


def test_a_block_beyond_the_models_tables_is_an_error_that_names_the_settings() -> None:
    _, turns = make_turns()
    turns.at(9)
    with pytest.raises(ConfigError, match=r"block 10 .* 32 positions.*cache\.window_blocks"):
        turns.at(10)


def test_rotations_first_used_in_inference_serve_training_too() -> None:
    _, turns = make_turns()
    with torch.inference_mode():
        turns.at(0)
        turns.at_each([0, 1])
    states = torch.randn(TOKENS, WIDTH, requires_grad=True)
    rotate(states, turns.at(0)).sum().backward()
    assert states.grad is not None
