"""Tests that an SDXL checkpoint in its original single-file layout is the same model as its folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

from swiftdiff.models.kohya_names import kohya_unet_name
from swiftdiff.models.loading import load_pipeline
from swiftdiff.models.registry import resolve_model

UNET_NORMS = {"norm1": "in_layers.0", "norm2": "out_layers.0"}
VAE_RULES = (
    (r"(en|de)coder\.mid_block\.resnets\.0", r"\1coder.mid.block_1"),
    (r"(en|de)coder\.mid_block\.resnets\.1", r"\1coder.mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda match: f"up.{3 - int(match[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda match: f"up.{3 - int(match[1])}.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)
OPEN_CLIP_RULES = (
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"self_attn", "attn"),
    (r"fc1", "c_fc"),
    (r"fc2", "c_proj"),
)


def rename(key: str, rules: tuple[tuple[str, object], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)  # type: ignore[call-overload]
    return key


def unet_key(key: str) -> str:
    module, _, kind = key.rpartition(".")
    if module == "conv_norm_out":
        return f"out.0.{kind}"
    parent, _, last = module.rpartition(".")
    if last in UNET_NORMS and "resnets" in module:
        sibling = kohya_unet_name(f"{parent}.conv1")
        return f"{sibling.removesuffix('.in_layers.2')}.{UNET_NORMS[last]}.{kind}"
    return f"{kohya_unet_name(module)}.{kind}"


def original_layout(pipeline: StableDiffusionXLPipeline) -> dict[str, torch.Tensor]:
    tensors = {"model.diffusion_model." + unet_key(k): v for k, v in pipeline.unet.state_dict().items()}
    for key, value in pipeline.vae.state_dict().items():
        is_attention = "attentions" in key and "group_norm" not in key and value.ndim == 2
        tensors["first_stage_model." + rename(key, VAE_RULES)] = (
            value[:, :, None, None] if is_attention else value
        )
    for key, value in pipeline.text_encoder.state_dict().items():
        name = "text_model." + key.removeprefix("text_model.")
        tensors["conditioner.embedders.0.transformer." + name] = value
    start = "conditioner.embedders.1.model."
    encoder = pipeline.text_encoder_2.state_dict()
    for key, value in encoder.items():
        name = rename(key, OPEN_CLIP_RULES)
        if key == "text_projection.weight":
            tensors[start + "text_projection"] = value.T
        elif ".q_proj." in key:
            packed = torch.cat(
                [encoder[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            )
            tensors[start + name.replace("q_proj.", "in_proj_")] = packed
        elif ".k_proj." not in key and ".v_proj." not in key:
            tensors[start + name] = value
    return {key: value.half().contiguous() for key, value in tensors.items()}


def test_a_single_file_beside_its_configs_is_the_same_model_as_the_folder(
    thin: StableDiffusionXLPipeline, thin_family: Path, tmp_path: Path
) -> None:
    save_file(original_layout(thin), tmp_path / "thin.safetensors")
    without_weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(thin_family / "base", tmp_path / "thin", ignore=without_weights)
    source = resolve_model(tmp_path / "thin.safetensors")
    assert source.kind == "file"
    loaded = load_pipeline(source)
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        expected = getattr(thin, component).state_dict()
        actual = getattr(loaded, component).state_dict()
        assert set(actual) == set(expected)
        for key, value in actual.items():
            assert np.array_equal(value.numpy(), expected[key].numpy()), f"{component}.{key}"
