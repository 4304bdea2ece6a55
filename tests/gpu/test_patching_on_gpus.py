"""Checks that weights on a GPU are patched as on the CPU, and restored bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from gpu import NEEDS_GPU
from loras import TINY_LAYERS, TinyModel, is_identical, random_layers, snapshot, write_lora

from swiftdiff.adapters.delta_plan import ELEMENTS_AT_ONCE_ON_GPU, DeltaPlan, build_plan
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.patcher import WeightPatcher
from swiftdiff.pipeline.lane import Lane

pytestmark = NEEDS_GPU


@pytest.fixture
def plans(tmp_path: Path) -> list[DeltaPlan]:
    model, plans = TinyModel(), []
    for seed in range(3):
        layers = random_layers(model, TINY_LAYERS, seed=seed, rank=1 + seed, alpha=1.5)
        path = write_lora(tmp_path / f"lora{seed}.safetensors", layers)
        weights = read_lora(path, f"lora{seed}")
        plans.append(build_plan(weights, ModelLayers.of({"unet": model}), ELEMENTS_AT_ONCE_ON_GPU))
    return plans


@pytest.mark.parametrize("budget", [None, 0, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["pinned", "pageable", "device"])
def test_patches_are_the_cpus_and_restores_are_bit_exact(
    plans: list[DeltaPlan], budget: int | None, dtype: torch.dtype, place: str
) -> None:
    put = {"pinned": DeltaPlan.pinned, "device": lambda plan: plan.to("cuda"), "pageable": lambda plan: plan}
    placed = [put[place](plan) for plan in plans]
    on_cpu = TinyModel().to(dtype)
    on_gpu = copy.deepcopy(on_cpu).to("cuda")
    saved = snapshot(on_gpu)
    there, here = WeightPatcher({"unet": on_gpu}, device_budget_bytes=budget), WeightPatcher({"unet": on_cpu})
    for chosen in ((0,), (0, 1), (2, 1), (), (1,), (0, 1, 2)):
        there.apply_set([(placed[index], 0.3 + index) for index in chosen])
        here.apply_set([(plans[index], 0.3 + index) for index in chosen])
        for name in TINY_LAYERS:
            found, expected = (each.get_parameter(f"{name}.weight").detach() for each in (on_gpu, on_cpu))
            torch.testing.assert_close(found.cpu(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    there.restore()
    assert is_identical(on_gpu, saved)


def test_convolutions_in_channels_last_keep_their_layout(plans: list[DeltaPlan]) -> None:
    model = TinyModel().to("cuda", torch.float16).to(memory_format=torch.channels_last)
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model}, device_budget_bytes=0)
    patcher.patch([(plans[0].pinned(), 1.0), (plans[1].pinned(), 1.0)])
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    patcher.restore()
    assert is_identical(model, saved)


def test_lanes_see_patches_and_restores_that_were_queued_before_their_work(plans: list[DeltaPlan]) -> None:
    model = TinyModel().to("cuda").eval()
    patcher = WeightPatcher({"unet": model}, device_budget_bytes=0)
    x = torch.randn(2, 3, 5, 5, device="cuda")
    with torch.inference_mode(), Lane("cuda:0") as lane:
        pristine = lane.submit(model, x).result().clone()
        patcher.patch([(plans[0], 1.0)])
        patched = model(x)
        patcher.restore()
        for _ in range(50):
            patcher.patch([(plans[0].pinned(), 1.0)])
            assert torch.equal(lane.submit(model, x).result(), patched)
            patcher.restore()
            assert torch.equal(lane.submit(model, x).result(), pristine)
