"""Tests of the random-weight presets: SDXL's topology, and weights that behave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image

from swiftdiff.errors import ModelError
from swiftdiff.models.presets import PRESETS, build_preset, build_preset_controlnet

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
ATTENTION = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")


def count(pipeline: StableDiffusionXLPipeline, component: str) -> int:
    return sum(parameter.numel() for parameter in getattr(pipeline, component).parameters())


def draw(pipeline: StableDiffusionXLPipeline, prompt: str, **arguments: object) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    size = {"height": 64, "width": 64}
    result = pipeline(
        prompt,
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=generator,
        output_type="np",
        **size,
        **arguments,
    )
    picture: np.ndarray = result.images[0]
    return picture


def test_the_full_preset_has_exactly_the_parameters_of_sdxl() -> None:
    pipeline = build_preset("sdxl", device="meta")
    assert [count(pipeline, component) for component in COMPONENTS] == [
        2_567_463_684,
        83_653_863,
        123_060_480,
        694_659_840,
    ]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_listed_number_of_parameters_is_the_built_one(name: str) -> None:
    pipeline = build_preset(name, device="meta")
    assert sum(count(pipeline, component) for component in COMPONENTS) == PRESETS[name].parameters


def test_both_presets_have_the_same_layers_and_560_attention_projections() -> None:
    thin, full = (build_preset(name, device="meta") for name in ("sdxl-thin", "sdxl"))
    for component in COMPONENTS:
        assert set(getattr(thin, component).state_dict()) == set(getattr(full, component).state_dict())
    assert sum(key.endswith(ATTENTION) for key in thin.unet.state_dict()) == 560
    assert list(thin.unet.config.block_out_channels) == [32, 64, 128]


def test_pictures_are_neither_constant_nor_saturated_and_follow_the_prompt(
    thin: StableDiffusionXLPipeline,
) -> None:
    picture, other = draw(thin, "a red circle"), draw(thin, "a blue house at night")
    assert np.isfinite(picture).all()
    assert picture.std() > 0.05
    assert ((picture <= 0) | (picture >= 1)).mean() < 0.2
    assert np.abs(picture - other).mean() > 0.01


def test_controlnets_differ_and_follow_their_picture(thin: StableDiffusionXLPipeline) -> None:
    hints = [
        Image.new("RGB", (64, 64), "black"),
        Image.fromarray(np.eye(64, dtype=np.uint8)[..., None].repeat(3, 2) * 255),
    ]
    pictures = [draw(thin, "a red circle")]
    for name in ("edges", "depth"):
        controlnet = build_preset_controlnet("sdxl-thin", name)
        pipeline = StableDiffusionXLControlNetPipeline(
            **thin.components, controlnet=controlnet, add_watermarker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        pictures += [draw(pipeline, "a red circle", image=hint) for hint in hints]
    differences = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(differences) > 0.002


def test_weights_depend_on_the_seed_alone_and_are_exact_in_half_precision(
    thin: StableDiffusionXLPipeline,
) -> None:
    again = build_preset("sdxl-thin", dtype=torch.float16)
    other = build_preset("sdxl-thin", seed=1)
    for component in COMPONENTS:
        weights = getattr(thin, component).state_dict()
        for key, weight in getattr(again, component).state_dict().items():
            assert torch.equal(weight.to(weights[key].dtype), weights[key]), key
    key = "mid_block.attentions.0.proj_in.weight"
    assert not torch.equal(other.unet.state_dict()[key], thin.unet.state_dict()[key])


def test_an_unknown_preset_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match="sdxl-thin or sdxl"):
        build_preset("sdxl-fat")
