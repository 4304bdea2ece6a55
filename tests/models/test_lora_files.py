"""Tests that stock diffusers reads the LoRA files we write, and fuses exactly alpha / rank · up @ down."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

from swiftdiff.errors import AdapterError
from swiftdiff.models.kohya_names import kohya_unet_name
from swiftdiff.models.lora_files import LoraFormat, LoraLayer, save_lora
from swiftdiff.models.presets import build_preset
from swiftdiff.models.quiet import quiet_libraries

UNET_LAYERS = re.compile(
    r"attn[12]\.to_(q|k|v|out\.0)$|conv[12]$|conv_shortcut$|time_emb_proj$|samplers\.0\.conv$|ff\.net\.(0\.proj|2)$|"
    r"proj_(in|out)$|^conv_(in|out)$|^(time|add)_embedding\.linear_[12]$"
)
TEXT_LAYERS = re.compile(r"layers\.[01]\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")


def small_unet(layers_per_block: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8, 16),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 1, 2),
        norm_num_groups=4,
        cross_attention_dim=128,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80 + 6 * 8,
        use_linear_projection=True,
    )


@pytest.fixture(params=[1, 2])
def pipeline(request: pytest.FixtureRequest, thin: StableDiffusionXLPipeline) -> StableDiffusionXLPipeline:
    parts = dict(thin.components)
    parts["unet"] = small_unet(request.param)
    for name in ("text_encoder", "text_encoder_2"):
        parts[name] = copy.deepcopy(parts[name])
    return StableDiffusionXLPipeline(**parts, add_watermarker=False)


def random_layers(model: nn.Module, wanted: re.Pattern[str]) -> dict[str, LoraLayer]:
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name, module in model.named_modules():
        if not wanted.search(name) or not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        rank = 2 + 2 * (len(layers) % 3)
        shape = module.weight.shape
        down = torch.randn(rank, *shape[1:], generator=generator) * 0.1
        up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) * 0.1
        layers[name] = LoraLayer(down, up, alpha=(None, 1.0, 4.0, 8.0)[len(layers) % 4])
    return layers


@pytest.mark.parametrize("fmt", ["diffusers", "kohya"])
def test_stock_loading_fuses_exactly_what_was_saved(
    pipeline: StableDiffusionXLPipeline, fmt: LoraFormat, tmp_path: Path
) -> None:
    saved = {
        "unet": random_layers(pipeline.unet, UNET_LAYERS),
        "text_encoder": random_layers(pipeline.text_encoder, TEXT_LAYERS),
        "text_encoder_2": random_layers(pipeline.text_encoder_2, TEXT_LAYERS),
    }
    assert any(layer.down.ndim == 4 for layer in saved["unet"].values())
    before = {name: copy.deepcopy(getattr(pipeline, name).state_dict()) for name in saved}
    file = tmp_path / "lora.safetensors"
    layers_per_block = pipeline.unet.config.layers_per_block
    save_lora(file, *saved.values(), fmt=fmt, layers_per_block=layers_per_block, dtype=torch.float32)
    with quiet_libraries():
        pipeline.load_lora_weights(str(file))
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    for component, layers in saved.items():
        after = getattr(pipeline, component).state_dict()
        assert set(after) == set(before[component])
        for key, weight in after.items():
            layer = layers.get(key.removesuffix(".weight"))
            change = torch.zeros(()) if layer is None or key.endswith(".bias") else layer.delta()
            torch.testing.assert_close(weight, before[component][key] + change, atol=1e-5, rtol=1e-5)


def test_all_560_sdxl_projections_get_the_key_that_kohya_gives_them() -> None:
    unet = build_preset("sdxl-thin", device="meta").unet
    projections = [
        name for name, _ in unet.named_modules() if re.search(r"attn[12]\.to_(q|k|v|out\.0)$", name)
    ]
    keys = {"lora_unet_" + kohya_unet_name(name).replace(".", "_") for name in projections}
    assert len(keys) == 560
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in keys
    assert "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_out_0" in keys
    assert "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_k" in keys


@pytest.mark.parametrize(
    "name", ["", "down_blocks", "down_blocks.0.resnets.0.norm1", "side_blocks.0.resnets.0.conv1"]
)
def test_a_layer_that_kohya_has_no_name_for_is_an_error(name: str) -> None:
    with pytest.raises(AdapterError, match="no layer of an SDXL UNet"):
        kohya_unet_name(name)


def test_what_cannot_be_a_lora_is_refused_before_a_file_exists(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    good = LoraLayer(torch.zeros(2, 8), torch.zeros(8, 2))
    for layers, message in (
        ({}, "has no layers"),
        ({"conv_in": LoraLayer(torch.zeros(2, 8), torch.zeros(8, 3))}, "do not fit together"),
        ({"conv_in": LoraLayer(torch.full((2, 8), 1e9), good.up)}, "not finite"),
        ({"conv_in": LoraLayer(torch.full((2, 8), torch.nan), good.up)}, "not finite"),
    ):
        with pytest.raises(AdapterError, match=message):
            save_lora(file, layers)
    assert list(tmp_path.iterdir()) == []


def test_without_alphas_a_file_is_plain_peft_keys_in_half_precision(tmp_path: Path) -> None:
    save_lora(tmp_path / "x.safetensors", {"conv_in": LoraLayer(torch.ones(2, 8), torch.ones(8, 2))})
    tensors = load_file(tmp_path / "x.safetensors")
    assert set(tensors) == {"unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_every_lora_of_a_preset_changes_the_model_it_was_made_for(thin_family: Path) -> None:
    pipeline = build_preset("sdxl-thin")
    pristine = {
        name: copy.deepcopy(getattr(pipeline, name).state_dict()) for name in ("unet", "text_encoder_2")
    }
    with quiet_libraries():
        for file in sorted((thin_family / "loras").iterdir())[
            1:3
        ]:  # one of kohya's format, one with text encoders
            pipeline.load_lora_weights(str(file))
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
            for name, weights in pristine.items():
                changed = sum(
                    not torch.equal(weights[key], value)
                    for key, value in getattr(pipeline, name).state_dict().items()
                )
                assert changed == {"unet": 560, "text_encoder_2": 192 if file.stem == "neon" else 0}[name], (
                    file
                )
                getattr(pipeline, name).load_state_dict(weights)
