"""Tests that every spelling of a LoRA file reads the same, and that damage is named by file and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from loras import TinyModel, random_layers, write_lora
from safetensors.torch import save_file

from swiftdiff.adapters.delta_plan import build_plan
from swiftdiff.adapters.lora_keys import parse_key
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers, Target
from swiftdiff.errors import AdapterError
from swiftdiff.models.presets import build_preset

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
Q_PROJ = "text_model.encoder.layers.0.self_attn.q_proj"
DOWN, UP = torch.ones(2, 8), torch.ones(8, 2)


@pytest.mark.parametrize(
    ("key", "component", "layer", "part"),
    [
        (f"unet.{TO_Q}.lora_A.weight", "unet", TO_Q, "down"),
        (f"unet.base_model.model.{TO_Q}.lora_B.weight", "unet", TO_Q, "up"),
        (f"unet.{TO_Q}.lora.down.weight", "unet", TO_Q, "down"),
        ("unet.mid.attn1.processor.to_out_lora.up.weight", "unet", "mid.attn1.to_out.0", "up"),
        ("unet.mid.attn1.processor.to_k_lora.down.weight", "unet", "mid.attn1.to_k", "down"),
        (f"unet.{TO_Q}.lora_magnitude_vector", "unet", TO_Q, "magnitude"),
        (f"unet.{TO_Q}.lora_magnitude_vector.weight", "unet", TO_Q, "magnitude"),
        (f"text_encoder.{Q_PROJ}.lora_linear_layer.up.weight", "text_encoder", Q_PROJ[11:], "up"),
        ("text_encoder_2.a.self_attn.to_q_lora.down.weight", "text_encoder_2", "a.self_attn.q_proj", "down"),
        (f"lora_unet_{TO_Q.replace('.', '_')}.lora_down.weight", "unet", TO_Q, "down"),
        (f"lora_te1_{Q_PROJ.replace('.', '_')}.alpha", "text_encoder", Q_PROJ[11:], "alpha"),
        (f"lora_te_{Q_PROJ.replace('.', '_')}.lora_up.weight", "text_encoder", Q_PROJ[11:], "up"),
        (f"lora_te2_{Q_PROJ.replace('.', '_')}.lora_up.weight", "text_encoder_2", Q_PROJ[11:], "up"),
        ("lora_unet_a_b.dora_scale", "unet", "a_b", "ignored"),
    ],
)
def test_each_spelling_names_component_layer_and_part(
    key: str, component: str, layer: str, part: str
) -> None:
    parsed = parse_key(key)
    assert parsed is not None
    assert (parsed.component, parsed.layer, parsed.part) == (component, layer.replace(".", "_"), part)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "unet",
        "unet.x.weight",
        "lora_unet_x.lora_mid.weight",
        "lora_unet_x.hada_w1_a",
        "transformer.x.alpha",
    ],
)
def test_other_keys_are_no_loras(key: str) -> None:
    assert parse_key(key) is None


def test_every_layer_of_sdxl_is_found_by_its_original_and_by_its_diffusers_name() -> None:
    pipeline = build_preset("sdxl-thin", device="meta")
    model = ModelLayers.of({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    assert model.names["unet", TO_OUT.replace(".", "_")] == Target("unet", TO_OUT)
    sgm = "middle_block_1_transformer_blocks_0_attn1_to_out_0"
    assert model.names["unet", sgm] == Target("unet", TO_OUT)
    assert model.names["unet", "input_blocks_4_0_in_layers_2"].module == "down_blocks.1.resnets.0.conv1"
    assert len({target for (component, _), target in model.names.items() if component == "unet"}) == sum(
        target.component == "unet" for target in model.shapes
    )
    assert ("text_encoder", "encoder_layers_0_self_attn_q_proj") in model.names


def test_alphas_come_from_pefts_metadata_by_the_patterns_that_peft_matches(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    names = ("conv_in", "mid.to_q", "mid.to_k")
    tensors = {f"unet.{n}.lora_{'AB'[i]}.weight": (DOWN, UP)[i].clone() for n in names for i in (0, 1)}
    metadata = {
        "unet.lora_alpha": 4,
        "unet.alpha_pattern": {"^conv_in": 1, "to_q": 8.0},
        "unet.use_rslora": False,
    }
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    alphas = {layer.name: layer.lora.alpha for layer in read_lora(path, "x").layers}
    assert alphas == {"conv_in": 1.0, "mid_to_q": 8.0, "mid_to_k": 4.0}
    metadata["unet.use_rslora"] = True
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    assert read_lora(path, "x").layers[0].lora.scale == pytest.approx(1 / 2**0.5)


@pytest.mark.parametrize(
    "text", ["no json", "[1]", '{"unet.lora_alpha": "NaN"}', '{"unet.lora_alpha": null}']
)
def test_broken_metadata_are_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": UP}
    save_file(tensors, path, metadata={"lora_adapter_metadata": text})
    with pytest.raises(AdapterError, match=r"lora_adapter_metadata in x\.safetensors"):
        read_lora(path, "x")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"unet.a.lora_A.weight": DOWN},
            r"'x' is incomplete: unet\.a\.lora_A\.weight in x\.safetensors .*no up",
        ),
        ({"unet.a.lora_B.weight": UP}, r"unet\.a\.lora_B\.weight in x\.safetensors has no down"),
        ({"unet.a.alpha": torch.tensor(1.0)}, r"unet\.a\.alpha in x\.safetensors has no down"),
        ({"vae.a.lora_A.weight": DOWN}, r"vae\.a\.lora_A\.weight in x\.safetensors is no key of a LoRA"),
        (
            {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": torch.ones(8, 3)},
            r"unet\.a\.lora_A\.weight in x\.safetensors has shape \[2, 8\], .* \[8, 3\]",
        ),
        (
            {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": UP, "unet.a.lora.down.weight": 2 * DOWN},
            r"unet\.a\.lora\.down\.weight and unet\.a\.lora_A\.weight in x\.safetensors name the same",
        ),
        (
            {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": UP, "unet.a.alpha": torch.ones(2)},
            r"unet\.a\.alpha in x\.safetensors has shape \[2\], but must be one number",
        ),
        (
            {"unet.a.lora_A.weight": DOWN.int(), "unet.a.lora_B.weight": UP},
            r"unet\.a\.lora_A\.weight in x\.safetensors holds torch\.int32",
        ),
        (
            {
                "unet.a.lora_A.weight": DOWN,
                "unet.a.lora_B.weight": UP,
                "unet.a.lora_magnitude_vector": torch.ones(7),
            },
            r"lora_magnitude_vector in x\.safetensors has shape \[7\], but must have 8 values",
        ),
        ({}, "'x' is empty: x.safetensors holds no tensor"),
    ],
)
def test_what_is_no_sound_lora_is_refused_with_file_and_key(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    with pytest.raises(AdapterError, match=message):
        read_lora(path, "x")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight", "alpha"])
def test_nan_and_infinity_are_refused_with_the_key(
    tmp_path: Path, dtype: torch.dtype, value: float, part: str
) -> None:
    tensors = {}
    for name in "abc":
        tensors |= {f"unet.{name}.lora_A.weight": DOWN.to(dtype), f"unet.{name}.lora_B.weight": UP.to(dtype)}
        tensors[f"unet.{name}.alpha"] = torch.tensor(1.0, dtype=dtype)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    tensors[f"unet.b.{part}"].view(-1)[-1] = value
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match=rf"'x' is damaged: unet\.b\.{part} in x\.safetensors holds NaN"):
        read_lora(tmp_path / "x.safetensors", "x")


@pytest.mark.parametrize("keep", [0, 7, 60, 300])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_lora(tmp_path / "x.safetensors", random_layers(TinyModel(), ["first", "second"]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(AdapterError, match=r"'x' cannot be read: x\.safetensors is truncated"):
        read_lora(path, "x")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"unet.a.lora_A.weight": DOWN}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match="no safetensors file"):
        read_lora(tmp_path / "x.safetensors", "x")


def test_dora_scales_in_kohyas_keys_are_left_out_as_stock_does_and_noted(tmp_path: Path) -> None:
    tensors = {"lora_unet_a.lora_down.weight": DOWN, "lora_unet_a.lora_up.weight": UP}
    save_file({**tensors, "lora_unet_a.dora_scale": torch.ones(8)}, tmp_path / "x.safetensors")
    weights = read_lora(tmp_path / "x.safetensors", "x")
    assert weights.layers[0].magnitude is None
    assert weights.notes == ("1 dora_scale keys left out, as stock diffusers does",)


def test_a_lora_for_another_base_is_told_by_file_key_and_shapes(tmp_path: Path) -> None:
    model = TinyModel()
    layers = ModelLayers.of({"unet": model})
    sound = random_layers(model, ["first", "second"])
    other = {f"deep.{name}": layer for name, layer in sound.items()}
    for written, message in (
        (other, r"another base model.*none of its layers is in it.*unet\.deep\.first\.lora_A.* in x\.safe"),
        (
            {**sound, "deep": sound["first"]},
            r"unknown layers.*1 of 3 layers are not in it.*unet\.deep\.lora_A",
        ),
        ({"first": sound["second"]}, r"first\.lora_A\.weight in x\.safetensors has shape \[2, 6\].*\[6, 4\]"),
        ({"conv": sound["first"]}, r"conv\.lora_A.*unet\.conv has a weight of \[4, 3, 3, 3\]"),
    ):
        path = write_lora(tmp_path / "x.safetensors", written)
        with pytest.raises(AdapterError, match=message):
            build_plan(read_lora(path, "x"), layers)


def test_one_layer_named_twice_is_refused(tmp_path: Path) -> None:
    unet = build_preset("sdxl-thin", device="meta").unet
    layers = random_layers_like(unet.get_submodule(TO_Q).weight.shape)
    sgm = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    twice = {f"{sgm}.lora_down.weight": layers[0], f"{sgm}.lora_up.weight": layers[1]}
    flat = f"lora_unet_{TO_Q.replace('.', '_')}"
    twice |= {f"{flat}.lora_down.weight": layers[0].clone(), f"{flat}.lora_up.weight": layers[1].clone()}
    save_file(twice, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match="name the same layer"):
        build_plan(read_lora(tmp_path / "x.safetensors", "x"), ModelLayers.of({"unet": unet}))


def random_layers_like(shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, shape[1]), torch.randn(shape[0], 2)
