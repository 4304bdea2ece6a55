"""The family that ships: whole, small enough, loaded by stock diffusers, and really drawing its prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image

from swiftdiff.cli.main import run
from swiftdiff.models.integrity import read_manifest, verify_manifest
from swiftdiff.models.loading import load_pipeline
from swiftdiff.models.registry import resolve_model, shapes_root
from swiftdiff.quality import judge
from swiftdiff.scenes import CONTROL_KINDS, STYLES, caption, control_from_scene, sample_scene

PROMPT = "a large red circle above a small blue square on a sand background"


@pytest.fixture(scope="module")
def stock() -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(shapes_root() / "base")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, prompt: str = PROMPT, **options: Any) -> np.ndarray:
    picture = pipeline(
        prompt,
        num_inference_steps=4,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(7),
        **options,
    ).images[0]
    return np.asarray(picture).astype(int)


def replay(folder: Path, request: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Replay one request as a user would: from the folder of the trace, with no option but where to write."""
    fields = {"request_id": "one", "timestamp": 0, "prompt": PROMPT, "num_inference_steps": 4, "seed": 7}
    (folder / "trace.jsonl").write_text(json.dumps(fields | {"guidance_scale": 4.5} | request) + "\n")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        run(["replay", "trace.jsonl", "--out", "run"])
    assert not end.value.code
    return np.asarray(Image.open(folder / "run" / "images" / "one-0.png")).astype(int)


def test_the_family_is_whole_and_at_most_60_megabytes() -> None:
    verify_manifest(shapes_root())
    manifest = read_manifest(shapes_root())
    assert manifest.native_size == 128
    assert manifest.num_bytes <= 60e6
    assert not [name for name in manifest.files if name.endswith((".bin", ".pt", ".ckpt"))]


def test_a_replayed_picture_is_the_stock_pipelines_bit_for_bit(
    stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.array_equal(replay(tmp_path, {}, monkeypatch), draw(stock))


def test_a_replayed_picture_with_a_controlnet_is_the_stock_pipelines_bit_for_bit(
    stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = sample_scene(np.random.default_rng(3), count=2)
    control = Image.fromarray(control_from_scene("edges", scene, 128))
    control.save(tmp_path / "edges.png")
    net = ControlNetModel.from_pretrained(shapes_root() / "controlnets" / "edges")
    pipeline = StableDiffusionXLControlNetPipeline(**stock.components, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    uses = [{"id": "edges", "image": "edges.png", "scale": 0.9}]
    steered = replay(tmp_path, {"controlnets": uses}, monkeypatch)
    assert np.array_equal(steered, draw(pipeline, image=control, controlnet_conditioning_scale=0.9))
    assert not np.array_equal(steered, draw(stock))


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_each_controlnet_loads_in_stock_diffusers_and_steers(stock: Any, kind: str) -> None:
    net = ControlNetModel.from_pretrained(shapes_root() / "controlnets" / kind)
    pipeline = StableDiffusionXLControlNetPipeline(**stock.components, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    scene = sample_scene(np.random.default_rng(3), count=2)
    control = Image.fromarray(control_from_scene(kind, scene, 128))
    assert np.abs(draw(pipeline, image=control) - draw(stock)).mean() > 1


@pytest.mark.parametrize("style", STYLES)
def test_each_lora_loads_in_stock_diffusers_and_restyles(stock: Any, style: str) -> None:
    plain = draw(stock)
    stock.load_lora_weights(str(shapes_root() / "loras"), weight_name=f"{style}.safetensors")
    try:
        styled = draw(stock)
    finally:
        stock.unload_lora_weights()
    assert np.abs(styled - plain).mean() > 8
    assert np.array_equal(draw(stock), plain)


def test_prompts_decide_colours_sizes_places_and_grounds() -> None:
    pipeline = load_pipeline(resolve_model("shapes"), device="cpu", dtype="float32")
    pipeline.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(8)]
    pictures = pipeline(
        [caption(scene) for scene in scenes],
        num_inference_steps=20,
        guidance_scale=4.5,
        generator=[torch.Generator().manual_seed(i) for i in range(8)],
    ).images
    judged = [judge(np.asarray(picture), scene) for picture, scene in zip(pictures, scenes, strict=True)]
    objects = [each for one in judged for each in one.objects]
    assert np.mean([each.colour_right for each in objects]) >= 0.8
    assert np.mean([each.size_right for each in objects]) >= 0.7
    assert np.mean([one.relation_right for one in judged]) >= 0.8
    assert np.mean([one.background_right for one in judged]) >= 0.8
