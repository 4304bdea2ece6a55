"""Owns positions: the rotary embedding of a block at any place, from the tables of the stock module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from swiftdiff.errors import ConfigError

_KEPT_BLOCKS = 128


class BlockTurns:
    """The rotations of a block's tokens, by where the block stands.

    A rotation is a complex number for each pair of a head's channels. Its values are the stock module's, and
    multiplying by it computes what stock computes: bit for bit on a CPU, for heads of 32 channels or a
    multiple.

    Args:
        stock: A ``WanRotaryPosEmbed`` as the transformer's; its tables set the furthest position.
        grid: Tokens of a block in time, height and width.
        device: Where the rotations are used.
    """

    def __init__(self, stock: Any, grid: tuple[int, int, int], device: torch.device) -> None:
        self._stock = stock
        self._grid = grid
        self._device = device
        self._at = lru_cache(maxsize=_KEPT_BLOCKS)(self._build)

    def at(self, position: int) -> torch.Tensor:
        """Return the rotations of a block's tokens, [tokens, head_dim / 2], complex; not to be changed.

        Args:
            position: In blocks; 0 is the first.

        Raises:
            ConfigError: The position is beyond the model's tables.
        """
        return self._at(position)

    def at_each(self, positions: Sequence[int]) -> torch.Tensor:
        """Return the rotations of several blocks, [blocks, tokens, head_dim / 2].

        Raises:
            ConfigError: A position is beyond the model's tables.
        """
        tables = [self.at(position) for position in positions]
        with torch.inference_mode(False):  # see `_build`
            return torch.stack(tables)

    def _build(self, position: int) -> torch.Tensor:
        stock, size = self._stock, self._grid
        frames, height, width = size
        first, limit = position * frames, stock.freqs_cos.shape[0]
        if max(first + frames, height, width) > limit:
            raise ConfigError(
                f"block {position} of {frames} by {height} by {width} tokens is beyond the model's {limit} "
                "positions: let a block see fewer of the past (cache.window_blocks, cache.max_blocks)"
            )
        # Tables serve training too, and autograd cannot save what was made in inference mode.
        # Made on the host and copied whole: when the copy returns it has ended, so that any lane may read it.
        with torch.inference_mode(False), torch.no_grad():
            cos = stock.freqs_cos.to(torch.float32)[:, 0::2]
            sin = stock.freqs_sin.to(torch.float32)[:, 1::2]
            widths = [stock.t_dim // 2, stock.h_dim // 2, stock.w_dim // 2]
            in_time, in_height, in_width = torch.split(torch.complex(cos, sin), widths, dim=1)
            parts = (
                in_time[first : first + frames].view(frames, 1, 1, -1).expand(*size, -1),
                in_height[:height].view(1, height, 1, -1).expand(*size, -1),
                in_width[:width].view(1, 1, width, -1).expand(*size, -1),
            )
            return torch.cat(parts, dim=-1).flatten(0, 2).to(self._device)


def rotate(states: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return states turned by their positions.

    Args:
        states: [..., tokens, head_dim].
        turns: [tokens, head_dim / 2], complex, or more dimensions that broadcast.
    """
    return torch.view_as_real(_as_complex(states.float()) * turns).flatten(-2).type_as(states)


def rotate_into(target: torch.Tensor, states: torch.Tensor, turns: torch.Tensor) -> None:
    """Write states, turned by their positions, to ``target``; it may be ``states`` itself.

    Args:
        target: [..., tokens, head_dim], its last dimension contiguous.
        states: Of the same shape.
        turns: As for `rotate`.
    """
    if target.dtype == torch.float32 and states.dtype == torch.float32:
        torch.mul(_as_complex(states), turns, out=_as_complex(target))
    else:
        target.copy_(rotate(states.float(), turns))


def _as_complex(states: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(states.view(*states.shape[:-1], -1, 2))
