"""Pins the split networks to the installed diffusers: they must give what stock gives, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from families import build_unet
from pipeline_family import Family

from swiftdiff.errors import AdapterError, ModelError
from swiftdiff.pipeline.controlnets import join_residuals
from swiftdiff.pipeline.prompt_attention import compute_keys_values
from swiftdiff.pipeline.split_unet import (
    ControlNetTrunk,
    Prompt,
    UNetDecoder,
    UNetEncoder,
    embed_hint,
    embed_time,
)

TIMESTEP = torch.tensor(501.0)
Kept = tuple[torch.Tensor, ...]


def make_inputs(rows: int, size: tuple[int, int]) -> tuple[torch.Tensor, Prompt]:
    generator = torch.Generator().manual_seed(rows)
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(rows, 1)
    prompt = Prompt(
        torch.randn(rows, 24, 32, generator=generator), torch.randn(rows, 16, generator=generator), time_ids
    )
    return torch.randn(rows, 4, *size, generator=generator), prompt


def run_stock(network: Any, sample: torch.Tensor, prompt: Prompt, **arguments: Any) -> Any:
    added = {"text_embeds": prompt.pooled, "time_ids": prompt.time_ids}
    return network(
        sample, TIMESTEP, prompt.embeddings, added_cond_kwargs=added, return_dict=False, **arguments
    )


@torch.inference_mode()
@pytest.mark.parametrize("keep_keys", [False, True], ids=["embeddings", "keys and values"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (16, 8)], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_halves_and_trunk_equal_stock(
    rows: int, size: tuple[int, int], keep_keys: bool, family: Family
) -> None:
    unet, controlnets = family.base.unet, family.controlnets[:2]
    sample, prompt = make_inputs(rows, size)
    image = torch.rand(rows, 3, size[0] * 4, size[1] * 4)
    stock = [
        run_stock(net, sample, prompt, controlnet_cond=image, conditioning_scale=1.0) for net in controlnets
    ]
    expected_alone = run_stock(unet, sample, prompt)[0]
    downs = [a + b for a, b in zip(stock[0][0], stock[1][0], strict=True)]
    expected = run_stock(
        unet,
        sample,
        prompt,
        down_block_additional_residuals=downs,
        mid_block_additional_residual=stock[0][1] + stock[1][1],
    )[0]

    def told(part: Any) -> Kept:
        kept = compute_keys_values(part.cross_attentions, prompt.embeddings)
        return kept if keep_keys else (prompt.embeddings,)

    encoder, decoder = UNetEncoder(unet), UNetDecoder(unet)
    time = embed_time(unet, TIMESTEP, prompt)
    encoded = encoder(sample, time, *told(encoder))
    residuals = []
    for net in controlnets:
        trunk = ControlNetTrunk(net)
        hint = embed_hint(net, image)
        residuals.append(trunk(sample, embed_time(net, TIMESTEP, prompt), hint, *told(trunk)))
    for several, noise in (([], expected_alone), (residuals, expected)):
        hidden, *skips = join_residuals(encoded, several)
        assert torch.equal(decoder(hidden, time, *skips, *told(decoder)), noise)
    assert torch.equal(run_stock(unet, sample, prompt)[0], expected_alone), "stock can still use the model"


@torch.inference_mode()
def test_a_controlnet_that_reads_bgr_sees_bgr(family: Family) -> None:
    net = family.controlnets[0]
    image = torch.rand(1, 3, 32, 32)
    rgb = embed_hint(net, image)
    net.register_to_config(controlnet_conditioning_channel_order="bgr")
    assert torch.equal(embed_hint(net, image.flip(1)), rgb)


def test_halves_share_weights_with_the_stock_model() -> None:
    unet = build_unet()
    own = {parameter.data_ptr() for parameter in unet.parameters()}
    for half in (UNetEncoder(unet), UNetDecoder(unet)):
        assert {parameter.data_ptr() for parameter in half.parameters()} <= own


@torch.inference_mode()
def test_a_model_without_pooled_prompt_splits_too() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=4,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    sample, prompt = make_inputs(2, (8, 8))
    prompt = Prompt(prompt.embeddings)
    expected = unet(sample, TIMESTEP, prompt.embeddings).sample
    time = embed_time(unet, TIMESTEP, prompt)
    hidden, *skips = UNetEncoder(unet)(sample, time, prompt.embeddings)
    assert torch.equal(UNetDecoder(unet)(hidden, time, *skips, prompt.embeddings), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim is 8, but must be unset"),
        ({"center_input_sample": True}, "center_input_sample is True"),
        ({"addition_embed_type": "text"}, "addition_embed_type is 'text', but must be text_time or unset"),
    ],
)
def test_a_unet_with_more_than_sdxl_has_is_refused(change: dict[str, Any], message: str) -> None:
    unet = build_unet()
    unet.register_to_config(**change)
    with pytest.raises(ModelError, match=message):
        UNetEncoder(unet)


def test_a_controlnet_with_more_than_sdxl_has_is_refused() -> None:
    net = ControlNetModel.from_unet(build_unet(), conditioning_embedding_out_channels=(4, 8, 8))
    net.register_to_config(global_pool_conditions=True)
    with pytest.raises(AdapterError, match="global_pool_conditions is True"):
        ControlNetTrunk(net)


def test_cross_attention_with_a_processor_of_its_own_is_refused() -> None:
    unet = build_unet()
    unet.set_attn_processor(AttnProcessor())
    with pytest.raises(ModelError, match="AttnProcessor"):
        UNetDecoder(unet)
