"""int8 keys and values."""

from __future__ import annotations

import torch

from swiftdiff.world.int8 import dequantize_into, quantize


def test_each_number_is_off_by_at_most_half_its_scale() -> None:
    states = torch.randn(2, 3, 50, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 16)
    numbers, scale = quantize(states)
    assert numbers.dtype == torch.int8
    assert scale.shape == (2, 3, 50, 1)
    restored = torch.empty_like(states)
    dequantize_into(restored, numbers, scale)
    assert ((restored - states).abs() <= scale * 0.5001).all()
    assert (numbers.abs().amax(-1) == 127).all(), "the range is not used"


def test_zeros_stay_zeros() -> None:
    numbers, scale = quantize(torch.zeros(4, 8))
    restored = torch.ones(4, 8, dtype=torch.bfloat16)
    dequantize_into(restored, numbers, scale)
    assert (restored == 0).all()
