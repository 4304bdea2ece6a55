"""Tests of ControlNets whose random weights are made when they are loaded, and of the families with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import save_file

from swiftdiff.adapters.controlnet_loading import ControlNetReader
from swiftdiff.adapters.store import AdapterStore
from swiftdiff.errors import AdapterError
from swiftdiff.models.family import materialize_preset
from swiftdiff.models.integrity import verify_manifest
from swiftdiff.models.loading import load_controlnet
from swiftdiff.models.preset_loras import lora_targets, preset_lora_plan
from swiftdiff.models.presets import PRESETS, build_preset_controlnet, find_preset
from swiftdiff.models.recipes import Recipe, read_recipe, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "controlnets" / "edges"
    write_recipe(folder, Recipe("sdxl-thin", "edges", 3))
    return folder


def test_a_recipe_takes_no_room_and_loads_as_the_controlnet_that_it_names(
    recipe: Path, thin: StableDiffusionXLPipeline
) -> None:
    assert sum(path.stat().st_size for path in recipe.iterdir()) < 10_000
    built = build_preset_controlnet("sdxl-thin", "edges", 3).state_dict()
    stock = load_controlnet(recipe)
    ours = ControlNetReader(AdapterStore(str(recipe.parent.parent)), thin.unet)("edges").value
    for loaded in (stock.state_dict(), ours.state_dict()):
        assert loaded.keys() == built.keys()
        assert all(torch.equal(loaded[key], built[key]) for key in built)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_folder_with_weights_is_no_recipe(thin_family: Path) -> None:
    assert read_recipe(thin_family / "controlnets" / "edges") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "a recipe that cannot be read"),
        ('{"preset": "sdxl-thin"}', "a recipe that cannot be read"),
        ('{"preset": "sdxl-fat", "controlnet": "edges", "seed": 0}', "sdxl-thin or sdxl"),
    ],
)
def test_a_damaged_recipe_is_an_error_of_its_adapter(
    recipe: Path, thin: StableDiffusionXLPipeline, text: str, reason: str
) -> None:
    save_file({}, recipe / "diffusion_pytorch_model.safetensors", metadata={"swiftdiff_recipe": text})
    with pytest.raises(AdapterError, match=reason):
        load_controlnet(recipe)
    with pytest.raises(AdapterError, match=reason):
        ControlNetReader(AdapterStore(str(recipe.parent.parent)), thin.unet)("edges")


def test_the_adapters_of_a_large_preset_are_recipes_and_loras_of_rank_64_in_722_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = dataclasses.replace(PRESETS["sdxl-thin"], parameters=2_000_000_000)
    monkeypatch.setitem(PRESETS, "sdxl-thin", large)
    family = materialize_preset("sdxl-thin", tmp_path / "large", loras=2, base=False)
    verify_manifest(family)
    assert {path.name for path in (family / "controlnets").iterdir()} == {"depth", "edges", "layout"}
    assert read_recipe(family / "controlnets" / "depth") == Recipe("sdxl-thin", "depth", 0)
    plans = preset_lora_plan(large, 2)
    assert [len(list(lora_targets("sdxl-thin", plan))) for plan in plans.values()] == [722, 722]
    for lora_id, up, per_layer in (("blueprint", "lora_up.weight", 3), ("gold", "lora_B.weight", 2)):
        with safe_open(family / "loras" / f"{lora_id}.safetensors", framework="pt") as file:
            keys = file.keys()
            assert len(keys) == 722 * per_layer
            assert {file.get_slice(key).get_shape()[1] for key in keys if key.endswith(up)} == {64}


def test_the_full_size_family_is_measured_by_what_it_writes_before_it_is_written() -> None:
    plans = preset_lora_plan(find_preset("sdxl"), 8)
    numbers = sum(
        plan.rank * (shape[0] + shape[1])
        for plan in plans.values()
        for _, _, shape in lora_targets("sdxl", plan)
    )
    estimate = 2 * PRESETS["sdxl"].parameters * 8 / 20
    assert 0.5 * estimate < 2 * numbers < 1.5 * estimate
