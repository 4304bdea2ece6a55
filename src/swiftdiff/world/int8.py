"""Owns the int8 form of keys and values: symmetric, with a scale for each token and head."""

from __future__ import annotations

import torch

_LARGEST = 127
_SMALLEST_SCALE = 1e-30  # for rows of zeros


def quantize(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int8 numbers and their scales; the error of each is at most half its scale.

    Args:
        states: [..., head_dim].

    Returns:
        int8 of the same shape, and float32 scales [..., 1].
    """
    scale = (states.float().abs().amax(dim=-1, keepdim=True) / _LARGEST).clamp_min(_SMALLEST_SCALE)
    return (states.float() / scale).round().to(torch.int8), scale


def dequantize_into(target: torch.Tensor, numbers: torch.Tensor, scale: torch.Tensor) -> None:
    """Write the values of what `quantize` returned to ``target``, of any floating dtype."""
    torch.mul(numbers, scale, out=target)
