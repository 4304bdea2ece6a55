"""Tuned kernels: stock's numbers up to rounding, from weights that are still everybody's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pipeline_family import Family

from swiftdiff.pipeline.acceleration import Acceleration
from swiftdiff.pipeline.graphs import ReplayKind
from swiftdiff.pipeline.kernels import PackedCopies, packed_bytes, tuned
from swiftdiff.pipeline.networks import ServedControlNet, SplitUNet
from swiftdiff.pipeline.prompt_attention import compute_keys_values
from swiftdiff.pipeline.split_unet import Prompt, UNetEncoder, embed_hint, embed_time

TUNED = Acceleration(tune=True)
TIMESTEP = torch.tensor(501.0)
# Sums of some hundred float32 products in another order, through two dozen layers.
TOLERANCE = 2e-5


def noise_of(split: SplitUNet, rows: int = 1, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(rows, 1)
    embeddings, pooled = (torch.randn(rows, *shape, generator=generator) for shape in ((24, 32), (16,)))
    prompt = Prompt(embeddings, pooled, time_ids)
    sample = torch.randn(rows, 4, *size, generator=generator)
    with torch.inference_mode():
        time = embed_time(split.unet, TIMESTEP, prompt)
        known = [compute_keys_values(layers, embeddings) for layers in split.cross_attentions]
        hidden, *skips = split.encode(sample, time, *known[0])
        noise: torch.Tensor = split.decode(hidden, time, *skips, *known[1])
    return noise


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (16, 8)], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_noise_is_stocks_up_to_the_rounding_of_sums(rows: int, size: tuple[int, int], family: Family) -> None:
    expected = noise_of(SplitUNet(family.base.unet), rows, size)
    found = noise_of(SplitUNet(family.base.unet, acceleration=TUNED), rows, size)
    assert 0 < distance(found, expected) < TOLERANCE  # 0 would mean that stock's kernels ran


def test_a_traced_graph_of_tuned_kernels_has_the_bits_of_the_same_kernels_run_eagerly(family: Family) -> None:
    eager, traced = (SplitUNet(family.base.unet, kind, acceleration=TUNED) for kind in ("eager", "traced"))
    for rows in (1, 2):
        assert torch.equal(noise_of(traced, rows), noise_of(eager, rows))


def test_a_controlnets_residuals_are_stocks_up_to_the_rounding_of_sums(family: Family) -> None:
    controlnet = family.controlnets[0]
    stock, fast = ServedControlNet(controlnet), ServedControlNet(controlnet, acceleration=TUNED)
    generator = torch.Generator().manual_seed(3)
    embeddings, pooled, sample, image = (
        torch.randn(2, *shape, generator=generator) for shape in ((24, 32), (16,), (4, 8, 8), (3, 32, 32))
    )
    prompt = Prompt(embeddings, pooled, torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(2, 1))
    with torch.inference_mode():
        arguments = (
            sample,
            embed_time(controlnet, TIMESTEP, prompt),
            embed_hint(controlnet, image),
            embeddings,
        )
        pairs = list(zip(fast.compute(*arguments), stock.compute(*arguments), strict=True))
    assert all(distance(found, expected) < TOLERANCE for found, expected in pairs)
    assert stock.extra_bytes == 0
    weights = sum(weight.nbytes for weight in controlnet.parameters())
    assert 0.5 * weights < fast.extra_bytes < 2 * weights


def test_the_stock_network_keeps_its_parameters_values_and_results(family: Family) -> None:
    unet = family.base.unet
    before = {name: (id(weight), weight.clone()) for name, weight in unet.named_parameters()}
    expected = noise_of(SplitUNet(unet))
    SplitUNet(unet, acceleration=TUNED)
    after = dict(unet.named_parameters())
    assert before.keys() == after.keys()
    assert all(id(after[name]) == key for name, (key, _) in before.items())
    assert all(torch.equal(after[name], weight) for name, (_, weight) in before.items())
    assert torch.equal(noise_of(SplitUNet(unet)), expected)


@pytest.mark.parametrize("kind", ["eager", "traced"])
@pytest.mark.parametrize(
    "layer",
    [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "up_blocks.0.resnets.0.conv1",
        "down_blocks.0.resnets.0.conv2",
    ],
)
def test_weights_changed_in_place_and_put_back_are_seen(layer: str, kind: ReplayKind, family: Family) -> None:
    unet = family.base.unet
    stock, fast = SplitUNet(unet), SplitUNet(unet, kind, acceleration=TUNED)
    pristine = noise_of(fast)
    weight = unet.get_submodule(layer).weight
    kept = weight.detach().clone()
    with torch.inference_mode():  # as the serving thread patches
        torch._foreach_add_([weight], [torch.full_like(weight, 0.2)])
    fast.refresh()
    assert distance(noise_of(fast), noise_of(stock)) < TOLERANCE
    assert not torch.equal(noise_of(fast), pristine)
    with torch.no_grad():
        weight.copy_(kept)
    fast.refresh()
    assert torch.equal(noise_of(fast), pristine)


def test_only_copies_of_changed_weights_are_made_anew(family: Family) -> None:
    twin = tuned(UNetEncoder(family.base.unet))
    assert packed_bytes(twin) > 0
    kept = PackedCopies(twin)
    assert not kept.renew()
    copies = {name: id(buffer) for name, buffer in twin.named_buffers() if buffer.is_mkldnn}
    changed = "down_blocks.0.resnets.0.conv1"
    with torch.no_grad():
        family.base.unet.get_submodule(changed).weight.add_(1)
    assert kept.renew()
    after = {name: id(buffer) for name, buffer in twin.named_buffers() if buffer.is_mkldnn}
    assert [name for name in copies if copies[name] != after[name]] == [f"{changed}.packed"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_other_types_than_float32_keep_stocks_kernels(dtype: torch.dtype, family: Family) -> None:
    part: Any = UNetEncoder(family.base.unet.to(dtype))
    assert tuned(part) is part
