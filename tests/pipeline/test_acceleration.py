"""Checks that faster networks compute what stock does, from weights that LoRAs may still be patched into."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from families import build_base
from torch import nn

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.acceleration import Acceleration
from swiftdiff.pipeline.captured import num_captures
from swiftdiff.pipeline.compiled_blocks import compile_blocks
from swiftdiff.pipeline.kernels import with_joint_products
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.prompt_attention import compute_keys_values
from swiftdiff.pipeline.quantized import QuantizedCopies, quantized
from swiftdiff.pipeline.split_unet import UNetEncoder

needs_torchao = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"


@pytest.fixture
def unet() -> Any:
    return build_base().unet.requires_grad_(False)


def arguments(encoder: UNetEncoder, rows: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, 4, 16, 16), (rows, 64), (rows, 24, 32))
    sample, time, embeddings = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    with torch.inference_mode():
        return [sample, time, *compute_keys_values(encoder.cross_attentions, embeddings)]


def run(part: nn.Module, values: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return list(part(*values))


def distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def change(unet: Any) -> None:
    weight = unet.get_submodule(LAYER).weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():  # as the serving thread patches
        weight.add_(noise.to(weight.dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_one_product_for_query_key_and_value_is_exact_up_to_rounding(
    unet: Any, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = UNetEncoder(unet.to(dtype))
    values = arguments(encoder, dtype=dtype)
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    expected = run(encoder, values)
    joint = with_joint_products(encoder)
    assert distance(run(joint, values), expected) < tolerance
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())
    change(unet)
    assert distance(run(joint, values), expected) > 0.01
    assert distance(run(joint, values), run(encoder, values)) < tolerance


def test_channels_last_weights_keep_their_parameters_and_values(unet: Any) -> None:
    values = arguments(UNetEncoder(unet))
    expected = run(UNetEncoder(unet), values)
    before = {name: (id(weight), weight.clone()) for name, weight in unet.named_parameters()}
    split = SplitUNet(unet, acceleration=Acceleration(channels_last=True))
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert distance(run(split.encode, values), expected) < 1e-5  # type: ignore[arg-type]
    for name, weight in unet.named_parameters():
        assert id(weight) == before[name][0]
        assert torch.equal(weight, before[name][1])


def test_alike_blocks_are_compiled_once_and_see_patched_weights_without_compiling_again(unet: Any) -> None:
    torch._dynamo.reset()
    encoder = UNetEncoder(unet)
    values, before = arguments(encoder), num_captures()
    compiled = compile_blocks(encoder, backend="eager")
    assert distance(run(compiled, values), run(encoder, values)) < 1e-5
    assert num_captures() - before == 1  # two blocks of one kind
    pristine = run(encoder, values)
    change(unet)
    assert distance(run(compiled, values), pristine) > 0.01
    assert distance(run(compiled, values), run(encoder, values)) < 1e-5
    assert num_captures() - before == 1


def test_compiled_blocks_take_plain_embeddings_too(unet: Any) -> None:
    torch._dynamo.reset()
    encoder = UNetEncoder(unet)
    sample, time, *_ = arguments(encoder)
    values = [sample, time, torch.randn(2, 24, 32)]
    assert distance(run(compile_blocks(encoder, backend="eager"), values), run(encoder, values)) < 1e-5


def test_what_is_compiled_or_quantized_is_not_traced() -> None:
    assert Acceleration(tune=True, channels_last=True).can_be_traced
    assert not Acceleration(compiled="eager").can_be_traced
    assert not Acceleration(precision="int8").can_be_traced


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is here")
def test_quantizing_without_torchao_says_what_to_install(unet: Any) -> None:
    with pytest.raises(ConfigError, match=r"quantized_weights is 'int8', .* pip install 'swiftdiff\[quant"):
        quantized(UNetEncoder(unet), "int8")


@needs_torchao
def test_8_bit_copies_follow_patched_weights_at_the_same_addresses(unet: Any) -> None:
    encoder = UNetEncoder(unet)
    values = arguments(encoder)
    expected = run(encoder, values)
    twin = quantized(encoder, "int8")
    copies = QuantizedCopies(twin)
    assert 0 < distance(run(twin, values), expected) < 0.1
    assert copies.num_bytes > 0
    layer: Any = twin.get_submodule(LAYER)
    places = [part.data_ptr() for part in _plain_parts(layer.rounded)]
    rounded_before = run(twin, values)
    change(unet)
    assert distance(run(twin, values), rounded_before) == 0
    copies.renew()
    assert distance(run(twin, values), run(encoder, values)) < 0.1
    assert distance(run(twin, values), rounded_before) > 0.01
    assert places == [part.data_ptr() for part in _plain_parts(layer.rounded)]


@needs_torchao
def test_a_device_without_8_bit_floats_is_a_clear_error(unet: Any) -> None:
    with pytest.raises(ConfigError, match=r"quantized_weights cannot be 'float8' here: .*compute capability"):
        quantized(UNetEncoder(unet), "float8")


def _plain_parts(tensor: Any) -> list[torch.Tensor]:
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in _plain_parts(getattr(tensor, name))]
