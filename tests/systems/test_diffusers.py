"""Parity of the baseline with stock diffusers, and what failed requests leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from swiftdiff.config import DiffusersConfig, ServingConfig
from swiftdiff.errors import AdapterError, RequestError, SwiftdiffError
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.systems import build_system

with quiet_libraries():
    from diffusers import (
        ControlNetModel,
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLPipeline,
    )

    from swiftdiff.systems.diffusers import DiffusersSystem

STEPS = 4
CONTROLNETS = ("edges", "depth", "layout")


def _request(**fields: Any) -> ImageRequest:
    values = {
        "request_id": "r",
        "timestamp": 0.0,
        "prompt": "a red circle",
        "seed": 5,
        "num_inference_steps": STEPS,
    }
    return ImageRequest(**(values | fields))


def _system(family: Path, **config: Any) -> DiffusersSystem:
    system = build_system(ServingConfig(name="stock", engine="diffusers", model=str(family), **config))
    assert isinstance(system, DiffusersSystem)
    return system


def _serve(system: DiffusersSystem, images: Path, **fields: Any) -> list[np.ndarray]:
    try:
        return [np.asarray(image) for image in system.serve(_request(**fields), images).images]
    finally:
        system.finish()


def _stock(family: Path) -> StableDiffusionXLPipeline:
    with quiet_libraries():
        pipe = StableDiffusionXLPipeline.from_pretrained(family / "base")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _draw(pipe: Any, count: int = 1, **options: Any) -> list[np.ndarray]:
    generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(count)]
    arguments = {"prompt": "a red circle", "num_inference_steps": STEPS, "generator": generators} | options
    with quiet_libraries():
        return [np.asarray(image) for image in pipe(num_images_per_prompt=count, **arguments).images]


def _weights(system: DiffusersSystem) -> dict[str, torch.Tensor]:
    parts = ("unet", "text_encoder", "text_encoder_2")
    return {
        f"{part}.{key}": value.clone()
        for part in parts
        for key, value in getattr(system._base, part).state_dict().items()
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "control.png")
    Image.fromarray(noise[:40, :56]).save(folder / "other-size.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    return folder


@pytest.fixture(scope="module")
def system(tiny_family: Path) -> Iterator[DiffusersSystem]:
    system = _system(tiny_family, diffusers=DiffusersConfig(max_cached_controlnets=2))
    yield system
    system.close()


@pytest.fixture
def fresh(tiny_family_copy: Path) -> DiffusersSystem:
    """A system of its own on a family that the test may damage."""
    return _system(tiny_family_copy)


def test_a_picture_is_bit_for_bit_the_stock_pipelines(tiny_family: Path, images: Path) -> None:
    fresh = _system(tiny_family)
    expected = _draw(_stock(tiny_family), guidance_scale=5.0)
    assert np.array_equal(_serve(fresh, images)[0], expected[0])


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"num_images": 3, "negative_prompt": "a blue star"}, {"count": 3, "negative_prompt": "a blue star"}),
        ({"negative_prompt": ""}, {"negative_prompt": ""}),
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
        (
            {"width": 96, "height": 48, "guidance_scale": 7.5},
            {"width": 96, "height": 48, "guidance_scale": 7.5},
        ),
    ],
)
def test_batches_prompts_guidance_and_sizes_equal_the_stock_call(
    tiny_family: Path, images: Path, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    expected = _draw(_stock(tiny_family), **options)
    actual = _serve(_system(tiny_family), images, **fields)
    assert len(actual) == len(expected)
    for ours, stocks in zip(actual, expected, strict=True):
        assert np.array_equal(ours, stocks)


@pytest.mark.parametrize("name", ["dpmpp_2m", "ddim"])
def test_schedulers_equal_the_stock_ones_of_the_models_noise_schedule(
    tiny_family: Path, images: Path, name: str
) -> None:
    pipe = _stock(tiny_family)
    config = pipe.scheduler.config
    pipe.scheduler = (
        DPMSolverMultistepScheduler.from_config(config)
        if name == "dpmpp_2m"
        else DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False)
    )
    assert np.array_equal(_serve(_system(tiny_family, scheduler=name), images)[0], _draw(pipe)[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_controlnets_with_scale_and_window_equal_the_stock_controlnet_pipeline(
    tiny_family: Path, images: Path, count: int
) -> None:
    settings = [
        ("control.png", 0.7, 0.0, 1.0),
        ("other-size.png", 0.5, 0.0, 0.5),
        ("control.png", 1.2, 0.3, 0.9),
    ]
    uses = tuple(
        ControlNetUse(id=name, image=image, scale=scale, start=start, end=end)
        for name, (image, scale, start, end) in zip(CONTROLNETS, settings, strict=True)
    )[:count]
    nets = [ControlNetModel.from_pretrained(tiny_family / "controlnets" / use.id) for use in uses]
    pipe = StableDiffusionXLControlNetPipeline(
        **_stock(tiny_family).components, controlnet=nets[0] if count == 1 else nets
    )
    pipe.set_progress_bar_config(disable=True)
    pictures = [Image.open(images / use.image).convert("RGB") for use in uses]
    expected = _draw(
        pipe,
        width=64,
        height=64,
        image=pictures[0] if count == 1 else pictures,
        controlnet_conditioning_scale=uses[0].scale if count == 1 else [use.scale for use in uses],
        control_guidance_start=[use.start for use in uses],
        control_guidance_end=[use.end for use in uses],
    )
    actual = _serve(_system(tiny_family), images, controlnets=uses)
    assert np.array_equal(actual[0], expected[0])
    assert not np.array_equal(actual[0], _draw(_stock(tiny_family))[0])


@pytest.mark.parametrize("fuse", [True, False])
def test_two_loras_with_scales_equal_the_stock_recipe(tiny_family: Path, images: Path, fuse: bool) -> None:
    """One in diffusers' keys with convolutions, one in kohya's with alphas; both change the text encoders."""
    pipe = _stock(tiny_family)
    with quiet_libraries():
        for name in ("gold", "kohya"):
            pipe.load_lora_weights(
                str(tiny_family / "loras"), weight_name=f"{name}.safetensors", adapter_name=name
            )
        pipe.set_adapters(["gold", "kohya"], [0.6, -0.9])
    if fuse:
        pipe.fuse_lora(adapter_names=["gold", "kohya"])
    fresh = _system(tiny_family, diffusers=DiffusersConfig(fuse_lora=fuse))
    uses = (LoraUse(id="gold", scale=0.6), LoraUse(id="kohya", scale=-0.9))
    assert np.array_equal(_serve(fresh, images, loras=uses)[0], _draw(pipe)[0])


def test_fused_weights_are_the_base_plus_the_sum_of_products(tiny_family: Path, images: Path) -> None:
    from families import build_base, random_lora

    fresh = _system(tiny_family)
    before = _weights(fresh)
    fresh.serve(_request(loras=(LoraUse(id="neon", scale=0.5), LoraUse(id="kohya", scale=2.0))), images)
    fused = {
        key.replace(".base_layer", ""): value for key, value in _weights(fresh).items() if "lora_" not in key
    }
    neon = load_file(tiny_family / "loras/neon.safetensors")
    kohya = random_lora(build_base(), rank=4, seed=3, text_encoders=True)
    changed = 0
    for key, value in fused.items():
        layer = key.removesuffix(".weight")
        expected = before[key].clone()
        for weights, scale in ((neon, 0.5), (kohya, 2.0 * 2.0 / 4)):  # kohya: scale · alpha / rank
            if f"{layer}.lora_A.weight" in weights:
                expected += scale * weights[f"{layer}.lora_B.weight"] @ weights[f"{layer}.lora_A.weight"]
                changed += 1
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert changed > 40
    fresh.finish()


def test_unfusing_leaves_the_weights_within_rounding_and_not_fusing_leaves_them_exact(
    tiny_family: Path, images: Path
) -> None:
    for fuse, tolerance in ((True, 1e-6), (False, 0.0)):
        fresh = _system(tiny_family, diffusers=DiffusersConfig(fuse_lora=fuse))
        before = _weights(fresh)
        for _ in range(3):
            _serve(fresh, images, loras=(LoraUse(id="gold"), LoraUse(id="kohya")), num_inference_steps=1)
        after = _weights(fresh)
        assert after.keys() == before.keys()
        drift = max(float((after[key].float() - before[key].float()).abs().max()) for key in before)
        assert drift <= tolerance


def test_controlnets_stay_in_memory_until_others_push_them_out(system: DiffusersSystem, images: Path) -> None:
    def load(name: str) -> int:
        use = ControlNetUse(id=name, image="control.png")
        loaded = system.serve(_request(controlnets=(use,), num_inference_steps=1), images).bytes_loaded
        system.finish()
        return loaded

    assert load("edges") > 0
    assert load("edges") == 0
    assert load("depth") > 0
    assert load("edges") == 0  # and so depth is the least recently used of the two that are kept
    assert load("layout") > 0
    assert load("edges") == 0
    assert load("depth") > 0


def test_every_stage_is_timed_where_it_happens(system: DiffusersSystem, images: Path) -> None:
    uses = (ControlNetUse(id="edges", image="control.png"),)
    served = system.serve(_request(controlnets=uses, loras=(LoraUse(id="neon"),)), images)
    system.finish()
    assert set(served.stages) == {
        "control_image", "controlnet_load", "lora_load", "lora_patch", "text_encode", "denoise", "vae_decode",
    }  # fmt: skip
    assert all(seconds >= 0 for seconds in served.stages.values())


def _break_lora(family: Path, how: str) -> str:
    path = family / "loras/broken.safetensors"
    weights = load_file(family / "loras/neon.safetensors")
    key = sorted(weights)[3]
    if how == "nan":
        weights[key][0, 0] = float("nan")
    elif how == "wrong shape":
        weights = {name: torch.cat([value, value], dim=1) for name, value in weights.items()}
    elif how == "another model's keys":
        weights = {name.replace("unet.", "unet.other."): value for name, value in weights.items()}
    elif how == "overflow":
        weights = {name: value * 1e25 for name, value in weights.items()}
    save_file(weights, path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    return "broken"


@pytest.mark.parametrize("how", ["nan", "truncated", "wrong shape", "another model's keys", "overflow"])
def test_a_broken_lora_fails_its_request_and_leaves_the_next_picture_as_it_was(
    fresh: DiffusersSystem, tiny_family_copy: Path, images: Path, how: str
) -> None:
    before, picture = _weights(fresh), _serve(fresh, images)[0]
    uses = (LoraUse(id=_break_lora(tiny_family_copy, how)),)
    with pytest.raises(SwiftdiffError, match="NaN" if how in ("nan", "overflow") else "broken"):
        _serve(fresh, images, loras=uses)
    after = _weights(fresh)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert np.array_equal(_serve(fresh, images)[0], picture)


def test_a_broken_lora_beside_a_good_one_is_taken_off_with_it(
    fresh: DiffusersSystem, tiny_family_copy: Path, images: Path
) -> None:
    picture = _serve(fresh, images)[0]
    with pytest.raises(AdapterError):
        _serve(
            fresh,
            images,
            loras=(LoraUse(id="gold"), LoraUse(id=_break_lora(tiny_family_copy, "wrong shape"))),
        )
    assert np.array_equal(_serve(fresh, images)[0], picture)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"loras": (LoraUse(id="neno"),)}, AdapterError, "did you mean 'neon'"),
        (
            {"controlnets": (ControlNetUse(id="egdes", image="control.png"),)},
            AdapterError,
            "did you mean 'edges'",
        ),
        ({"controlnets": (ControlNetUse(id="edges", image="none.png"),)}, RequestError, "does not exist"),
        (
            {"controlnets": (ControlNetUse(id="edges", image="broken.png"),)},
            RequestError,
            "cannot be read as",
        ),
    ],
)
def test_what_is_missing_or_unreadable_is_named(
    system: DiffusersSystem, images: Path, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _serve(system, images, **fields)


def test_a_damaged_controlnet_fails_its_request_only(
    fresh: DiffusersSystem, tiny_family_copy: Path, images: Path
) -> None:
    weights = tiny_family_copy / "controlnets/edges/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(AdapterError, match="edges"):
        _serve(fresh, images, controlnets=(ControlNetUse(id="edges", image="control.png"),))
    assert _serve(fresh, images, controlnets=(ControlNetUse(id="depth", image="control.png"),))


def test_sixteen_bit_control_images_keep_their_shades(tmp_path: Path) -> None:
    from swiftdiff.systems.control_image import load_control_images

    Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16)).save(tmp_path / "depth.png")
    request = _request(controlnets=(ControlNetUse(id="depth", image="depth.png"),))
    (image,) = load_control_images(request, tmp_path)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]
