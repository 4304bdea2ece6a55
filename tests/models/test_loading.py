"""Tests of loading: the stock picture from a good folder, and one clear error from a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from swiftdiff.errors import AdapterError, ConfigError, ModelError
from swiftdiff.models.loading import (
    check_controlnet_fits,
    find_device,
    find_dtype,
    load_controlnet,
    load_pipeline,
    make_scheduler,
)

CopyOf = Callable[[str], Path]


def draw(pipeline: StableDiffusionXLPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    picture: np.ndarray = pipeline(
        "a red circle",
        height=64,
        width=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    return picture


def test_stock_loading_without_a_dtype_gives_the_picture_of_the_preset_and_of_our_loading(
    thin_family: Path, thin: StableDiffusionXLPipeline
) -> None:
    stock = StableDiffusionXLPipeline.from_pretrained(thin_family / "base")
    ours = load_pipeline(str(thin_family))
    expected = draw(thin)
    assert np.array_equal(draw(stock), expected)
    assert np.array_equal(draw(ours), expected)


def test_every_part_comes_in_the_dtype_that_was_asked_for(thin_family: Path) -> None:
    pipeline = load_pipeline(thin_family, dtype="bfloat16", scheduler="dpmpp_2m")
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        dtypes = {parameter.dtype for parameter in getattr(pipeline, component).parameters()}
        assert dtypes == {torch.bfloat16}, component
    assert isinstance(pipeline.scheduler, DPMSolverMultistepScheduler)
    controlnet = load_controlnet(thin_family / "controlnets" / "edges", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in controlnet.parameters()} == {torch.bfloat16}
    check_controlnet_fits(controlnet, pipeline.unet, "edges")


def test_schedulers_keep_the_noise_schedule_and_ddim_does_not_clip_latents(
    thin: StableDiffusionXLPipeline,
) -> None:
    config = thin.scheduler.config
    ddim = make_scheduler("ddim", config)
    assert isinstance(ddim, DDIMScheduler)
    assert not ddim.config.clip_sample
    assert (ddim.config.beta_start, ddim.config.beta_end) == (config.beta_start, config.beta_end)
    with pytest.raises(ConfigError, match="euler, dpmpp_2m, ddim"):
        make_scheduler("heun", config)


def edit(file: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def drop_weight(file: Path, key: str) -> None:
    tensors = load_file(file)
    del tensors[key]
    save_file(tensors, file, metadata={"format": "pt"})


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_a_broken_folder_is_one_error_that_names_what_is_wrong(copy_of: CopyOf) -> None:
    base = copy_of("base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    index = base / "model_index.json"
    good_weights, good_index = weights.read_bytes(), index.read_text()

    def expect(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            load_pipeline(base)

    truncate(weights)
    expect(r"unet/diffusion_pytorch_model\.safetensors is damaged")
    weights.rename(weights.with_suffix(".bin"))
    expect(r"diffusion_pytorch_model\.bin is a pickle")
    weights.with_suffix(".bin").unlink()
    expect(r"unet has no weights: diffusion_pytorch_model\.safetensors is missing")
    weights.write_bytes(good_weights)

    edit(index, lambda content: content.update(_class_name="StableDiffusionPipeline"))
    expect("is a StableDiffusionPipeline, but swiftdiff serves Stable Diffusion XL")
    index.write_text(good_index)
    edit(index, lambda content: content.update(text_encoder=[None, None]))
    expect("names no text_encoder")
    index.write_text(good_index)
    edit(index, lambda content: content.update(unet=["my_code", "MyUNet"]))
    expect("needs code from 'my_code'")
    index.write_text("{")
    expect(r"model_index\.json is not valid JSON")
    index.unlink()
    expect(r"no model_index\.json")


@pytest.mark.parametrize(
    ("component", "file", "key"),
    [
        ("text_encoder", "model.safetensors", "encoder.layers.3.mlp.fc1.weight"),
        ("unet", "diffusion_pytorch_model.safetensors", "mid_block.attentions.0.proj_in.weight"),
    ],
)
def test_a_missing_weight_is_an_error_and_never_filled_up_at_random(
    copy_of: CopyOf, component: str, file: str, key: str
) -> None:
    base = copy_of("base")
    drop_weight(base / component / file, key)
    with pytest.raises(ModelError, match=f"{component}.*{key}|cannot be loaded.*{key}"):
        load_pipeline(base)


def test_a_broken_controlnet_is_an_adapter_error_that_names_what_is_wrong(copy_of: CopyOf) -> None:
    folder = copy_of("controlnets/edges")
    weights = folder / "diffusion_pytorch_model.safetensors"
    good = weights.read_bytes()

    def expect(message: str) -> None:
        with pytest.raises(AdapterError, match=message):
            load_controlnet(folder)

    drop_weight(weights, "controlnet_mid_block.weight")
    expect("no weight controlnet_mid_block.weight")
    weights.write_bytes(good[:1000])
    expect(r"diffusion_pytorch_model\.safetensors")
    weights.write_bytes(good)
    edit(folder / "config.json", lambda content: content.update(_class_name="ControlNetUnionModel"))
    expect("holds a ControlNetUnionModel")
    (folder / "config.json").unlink()
    expect(r"config\.json")


def test_a_controlnet_for_another_base_is_refused_with_the_number_that_differs(
    thin_family: Path, thin: StableDiffusionXLPipeline
) -> None:
    controlnet = load_controlnet(thin_family / "controlnets" / "edges")
    controlnet.register_to_config(cross_attention_dim=2048)
    with pytest.raises(
        AdapterError, match="edges is for another base model: its cross_attention_dim is 2048"
    ):
        check_controlnet_fits(controlnet, thin.unet, "edges")


def test_a_hub_id_without_a_network_says_what_to_do() -> None:
    with pytest.raises(
        ModelError, match=r"model org/unknown is no folder here.*Check the name and the network"
    ):
        load_pipeline("org/unknown")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("cond_stage_model.transformer.x", "Stable Diffusion 1 or 2 checkpoint"),
        ("conditioner.embedders.0.model.x", "SDXL refiner"),
        ("lora_unet_x.lora_up.weight", "a LoRA"),
        ("something.else", "unknown layout"),
    ],
)
def test_a_single_file_of_another_kind_is_recognised_by_its_keys(tmp_path: Path, key: str, what: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=f"{what}.*, but swiftdiff serves SDXL base checkpoints"):
        load_pipeline(file)


def test_a_single_file_without_configs_or_network_says_where_they_may_lie(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"conditioner.embedders.1.model.ln_final.weight": torch.zeros(1)}, file)
    with pytest.raises(
        ModelError, match=rf"without a network, put a diffusers folder .* at {tmp_path / 'model'}"
    ):
        load_pipeline(file)


def test_devices_and_dtypes_that_do_not_exist_are_config_errors() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_dtype("float16") is find_dtype(torch.float16) is torch.float16
    for device in ("gpu", "cuda:99", ""):
        with pytest.raises(ConfigError, match="device is"):
            find_device(device)
    for dtype in ("int8", torch.int64):
        with pytest.raises(ConfigError, match="float32, float16, bfloat16"):
            find_dtype(dtype)
