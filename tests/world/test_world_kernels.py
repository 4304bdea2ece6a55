"""The faster twin of a Wan transformer: stock's numbers up to rounding, stock's weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_world import build_tiny_transformer
from torch import Tensor

from swiftdiff.pipeline.kernels import packed_bytes
from swiftdiff.world.kernels import faster

ROUNDED = 1e-5  # sums of some hundred float32 products in another order, through a few layers


def compute(transformer: WanTransformer3DModel) -> Tensor:
    dtype = transformer.patch_embedding.weight.dtype
    generator = torch.Generator().manual_seed(5)
    latents, prompt = (torch.randn(2, *size, generator=generator) for size in ((4, 3, 8, 8), (4, 32)))
    with torch.no_grad():
        flow: Tensor = transformer(
            latents.to(dtype), torch.full((2,), 833.25), prompt.to(dtype), return_dict=False
        )[0]
    return flow


def test_it_computes_what_stock_does_up_to_the_rounding_of_sums() -> None:
    stock = build_tiny_transformer(0)
    expected = compute(stock)
    found = compute(faster(stock))
    assert 0 < float((found - expected).abs().max()) < ROUNDED  # 0 would mean that stock's kernels ran


def test_stock_keeps_its_parameters_names_values_and_results() -> None:
    stock = build_tiny_transformer(0)
    before = {name: (id(weight), weight.clone()) for name, weight in stock.named_parameters()}
    expected = compute(stock)
    faster(stock)
    after = dict(stock.named_parameters())
    assert {name: id(weight) for name, weight in after.items()} == {
        name: number for name, (number, _) in before.items()
    }
    assert all(torch.equal(after[name], weight) for name, (_, weight) in before.items())
    assert torch.equal(compute(stock), expected)


def test_joint_weights_are_the_very_memory_of_the_three() -> None:
    stock = build_tiny_transformer(0)
    twin = faster(stock)
    for own, joint in zip(stock.blocks, twin.blocks, strict=True):
        assert joint.attn1.to_qkv.weight.data_ptr() == own.attn1.to_q.weight.data_ptr()
        assert torch.equal(joint.attn1.to_qkv.bias[-own.attn1.to_v.bias.numel() :], own.attn1.to_v.bias)


def test_large_models_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = build_tiny_transformer(0)
    expected = compute(stock)
    assert packed_bytes(faster(stock)) > 0
    monkeypatch.setattr("swiftdiff.world.kernels._MOST_COPIED", 0)
    twin = faster(stock)
    assert packed_bytes(twin) == 0
    assert 0 < float((compute(twin) - expected).abs().max()) < ROUNDED


def test_half_precision_keeps_stocks_kernels_and_joins_products() -> None:
    stock = build_tiny_transformer(0).to(torch.bfloat16)
    twin = faster(stock)
    assert packed_bytes(twin) == 0
    assert twin.blocks[0].attn1.to_qkv.weight.dtype == torch.bfloat16
    assert torch.allclose(compute(twin), compute(stock), atol=0.05)  # some steps of bfloat16 near 1
