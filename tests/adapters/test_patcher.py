"""Tests that patched weights are what LoRAs mean, and that pristine ones come back bit for bit."""

from __future__ import annotations

import copy
import gc
import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import TINY_LAYERS, TinyModel, is_identical, random_layers, snapshot, tiny_plan, write_lora
from torch import nn

import swiftdiff.adapters.patcher as patcher_module
from swiftdiff.adapters.delta_plan import DeltaPlan, build_plan
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.patcher import WeightPatcher
from swiftdiff.errors import ModelError

# Largest difference from an exact sum, relative to the largest weight: a few units in float32's last place.
FLOAT32_TOLERANCE = 1e-6


@pytest.fixture
def model() -> TinyModel:
    model = TinyModel()
    with torch.no_grad():
        model.first.weight[0, 0] = -0.0  # subtracting what was added would lose the sign
    return model


@pytest.fixture
def plans(model: TinyModel, tmp_path: Path) -> list[DeltaPlan]:
    return [tiny_plan(tmp_path, model, f"lora{seed}", seed=seed, rank=1 + seed % 3) for seed in range(4)]


def exact(model: TinyModel, uses: list[tuple[DeltaPlan, float]], folder: Path) -> dict[str, torch.Tensor]:
    """Weights plus the sum of products, in float64."""
    expected = {name: model.get_parameter(f"{name}.weight").double() for name in TINY_LAYERS}
    for plan, scale in uses:
        for layer in read_lora(folder / f"{plan.adapter_id}.safetensors", plan.adapter_id).layers:
            up, down = layer.lora.up.to(expected[layer.name]), layer.lora.down.to(expected[layer.name])
            change = (up.flatten(1) @ down.flatten(1)).view_as(expected[layer.name])
            expected[layer.name] += scale * layer.lora.scale * change
    return expected


def assert_weights(model: nn.Module, expected: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        weight = model.get_parameter(f"{name}.weight").double()
        assert (weight - value).abs().max() <= tolerance * value.abs().max(), name


def test_several_loras_are_the_sum_of_their_products(
    model: TinyModel, plans: list[DeltaPlan], tmp_path: Path
) -> None:
    uses = [(plans[0], 0.7), (plans[1], -1.3), (plans[2], 1.0)]
    expected = exact(model, uses, tmp_path)
    WeightPatcher({"unet": model}).patch(uses)
    assert_weights(model, expected, FLOAT32_TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_summed_in_float32_and_rounded_once(
    dtype: torch.dtype, plans: list[DeltaPlan], tmp_path: Path
) -> None:
    model = TinyModel().to(dtype)
    uses = [(plan, 0.3) for plan in plans]
    saved = snapshot(model)
    expected = exact(model, uses, tmp_path)
    patcher = WeightPatcher({"unet": model})
    for use in uses:
        patcher.patch([use])
    for name, value in expected.items():
        weight = model.get_parameter(f"{name}.weight")
        torch.testing.assert_close(weight.detach(), value.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    patcher.restore()
    assert is_identical(model, saved)


def test_convolutions_in_channels_last_are_patched_in_their_layout(
    plans: list[DeltaPlan], model: TinyModel, tmp_path: Path
) -> None:
    uses = [(plans[0], 1.0)]
    expected = exact(model, uses, tmp_path)
    saved = snapshot(model)
    model.to(memory_format=torch.channels_last)
    patcher = WeightPatcher({"unet": model})
    patcher.patch(uses)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert_weights(model, expected, FLOAT32_TOLERANCE)
    patcher.restore()
    assert is_identical(model, saved)


def test_restoring_after_two_hundred_swaps_is_bit_exact_and_costs_no_memory(
    model: TinyModel, plans: list[DeltaPlan]
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    chance = random.Random(0)
    pointers = {name: value.data_ptr() for name, value in model.state_dict().items()}
    tensors = []
    for number in range(200):
        chosen = chance.sample(plans, chance.randint(0, 3))
        patcher.apply_set([(plan, chance.choice((0.5, 1.0, -2.0))) for plan in chosen])
        if number in (20, 199):
            patcher.restore()
            gc.collect()
            tensors.append(sum(type(thing) in (torch.Tensor, nn.Parameter) for thing in gc.get_objects()))
    assert is_identical(model, saved)
    assert pointers == {name: value.data_ptr() for name, value in model.state_dict().items()}
    assert tensors[0] == tensors[1]
    assert patcher.pristine_bytes == sum(model.get_parameter(f"{name}.weight").nbytes for name in TINY_LAYERS)


def test_the_same_loras_again_change_nothing_and_more_of_them_restore_nothing(
    model: TinyModel, plans: list[DeltaPlan], tmp_path: Path
) -> None:
    patcher = WeightPatcher({"unet": model})
    first = patcher.apply_set([(plans[0], 0.5)])
    assert (first.restored_weights, first.patched_weights, first.skipped) == (0, 4, False)
    assert first.factor_bytes == plans[0].num_bytes
    reread = build_plan(
        read_lora(tmp_path / "lora0.safetensors", "lora0"), ModelLayers.of({"unet": model})
    )  # from a cache that had let it go
    assert patcher.apply_set([(reread, 0.5)]).skipped
    more = patcher.apply_set([(plans[0], 0.5), (plans[1], 1.0)])
    assert (more.restored_weights, more.patched_weights) == (0, 4)
    other = patcher.apply_set([(plans[0], 0.6), (plans[1], 1.0)])
    assert (other.restored_weights, other.patched_weights) == (4, 4)
    none = patcher.apply_set([])
    assert (none.restored_weights, none.patched_weights) == (4, 0)
    assert none.components == {"unet"}
    assert patcher.apply_set([]).skipped


@settings(max_examples=20)
@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.5, 1.0])), max_size=3), max_size=5),
)
def test_weights_depend_on_the_loras_in_them_and_not_on_what_was_there_before(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, history: list[list[tuple[int, float]]]
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    model = TinyModel().to(dtype)
    plans = [
        *(tiny_plan(folder, model, f"p{seed}", seed=seed) for seed in range(3)),
        dora_plan(folder, model),
    ]
    fresh = copy.deepcopy(model)
    patcher = WeightPatcher({"unet": model})
    for uses in history:
        patcher.apply_set([(plans[index], scale) for index, scale in uses])
    last = [(plans[index], scale) for index, scale in history[-1]] if history else []
    WeightPatcher({"unet": fresh}).patch(last)
    assert is_identical(model, snapshot(fresh))


def dora_plan(folder: Path, model: TinyModel) -> DeltaPlan:
    layers = random_layers(model, ["conv", "second"], seed=9)
    magnitudes = {"second": torch.rand(6) + 0.5, "conv": torch.rand(1, 4, 1, 1) + 0.5}
    path = write_lora(folder / "dora.safetensors", layers, magnitudes=magnitudes)
    return build_plan(read_lora(path, "dora"), ModelLayers.of({"unet": model}))


@pytest.mark.parametrize("failing_call", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_patch_that_breaks_off_in_the_middle_leaves_pristine_weights(
    model: TinyModel,
    plans: list[DeltaPlan],
    monkeypatch: pytest.MonkeyPatch,
    failing_call: int,
    error: type[BaseException],
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    patcher.patch([(plans[1], 1.0)])
    calls = itertools.count()
    add = patcher_module.add_products

    def break_off(*args: Any) -> None:
        add(*args)
        if next(calls) == failing_call:
            raise error

    monkeypatch.setattr(patcher_module, "add_products", break_off)
    with pytest.raises(error):
        patcher.patch([(plans[0], 1.0)])
    assert is_identical(model, saved)
    assert patcher.applied == ()
    assert not patcher.apply_set([(plans[1], 1.0)]).skipped


def test_a_restore_that_breaks_off_is_repaired_by_the_next_call(
    model: TinyModel, plans: list[DeltaPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    patcher.patch([(plans[0], 1.0)])
    with monkeypatch.context() as broken:

        def break_off(weights: list[torch.Tensor], copies: list[torch.Tensor], **_: Any) -> None:
            weights[0].copy_(copies[0])
            raise KeyboardInterrupt

        broken.setattr(torch, "_foreach_copy_", break_off)
        with pytest.raises(KeyboardInterrupt):
            patcher.restore()
    assert not is_identical(model, saved)
    assert patcher.apply_set([]).restored_weights == 4
    assert is_identical(model, saved)


def test_a_traced_graph_sees_patches_and_restores(model: TinyModel, plans: list[DeltaPlan]) -> None:
    model.eval()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        traced = torch.jit.trace(model, (x,))
        before = traced(x).clone()
        patcher = WeightPatcher({"unet": model})
        patcher.patch([(plans[0], 1.0)])
        assert not torch.allclose(traced(x), before)
        assert torch.equal(traced(x), model(x))
        patcher.restore()
        assert torch.equal(traced(x), before)


def test_text_encoders_may_have_a_patcher_of_their_own(tmp_path: Path) -> None:
    models = {"unet": TinyModel(0), "text_encoder": TinyModel(1)}
    layers = random_layers(models["unet"], ["first"])
    text = write_lora(tmp_path / "t.safetensors", layers, component="text_encoder")
    from safetensors.torch import load_file

    path = write_lora(tmp_path / "x.safetensors", layers, extra=load_file(text))
    plan = build_plan(read_lora(path, "x"), ModelLayers.of(models))
    assert plan.components == {"unet", "text_encoder"}
    saved = snapshot(models["unet"])
    reports = [WeightPatcher({name: models[name]}).apply_set([(plan, 1.0)]) for name in models]
    assert [report.components for report in reports] == [{"unet"}, {"text_encoder"}]
    assert [report.patched_weights for report in reports] == [1, 1]
    changed = [
        key for key, value in models["unet"].state_dict().items() if not torch.equal(value, saved[key])
    ]
    assert changed == ["first.weight"]


def test_copies_over_the_devices_budget_restore_as_well(model: TinyModel, plans: list[DeltaPlan]) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model}, device_budget_bytes=200)
    patcher.patch([(plans[0], 1.0)])
    assert 0 < patcher._pristine.device_bytes <= 200 < patcher.pristine_bytes
    patcher.restore()
    assert is_identical(model, saved)


def test_a_plan_of_another_model_is_refused_and_leaves_the_weights_alone(
    model: TinyModel, plans: list[DeltaPlan]
) -> None:
    other = nn.Sequential(nn.Linear(4, 4))
    saved = snapshot(other)
    with pytest.raises(RuntimeError, match="another model's"):
        WeightPatcher({"unet": other}).patch([(plans[0], 1.0)])
    assert is_identical(other, saved)
    with pytest.raises(ModelError, match="float64"):
        WeightPatcher({"unet": nn.Linear(2, 2).double()})


def test_patches_inside_inference_mode_are_restored_outside_of_it(
    model: TinyModel, plans: list[DeltaPlan], tmp_path: Path
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    with torch.inference_mode():
        patcher.apply_set([(plans[0], 1.0), (dora_plan(tmp_path, model), 1.0)])
    patcher.restore()
    assert is_identical(model, saved)
    patcher.patch([(plans[0], 1.0)])
    with torch.inference_mode():
        patcher.apply_set([])
    assert is_identical(model, saved)
    model(torch.randn(1, 3, 5, 5)).sum().backward()  # the weights are ordinary tensors still


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_plans_of_large_groups_and_of_single_layers_give_the_same_weights(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = TinyModel().to(dtype)
    layers = random_layers(model, TINY_LAYERS, seed=3, rank=2, alpha=1.5)
    weights = read_lora(write_lora(tmp_path / "x.safetensors", layers), "x")
    results = []
    for elements_at_once in (1, 2**26):
        plan = build_plan(weights, ModelLayers.of({"unet": model}), elements_at_once)
        own = copy.deepcopy(model)
        WeightPatcher({"unet": own}).patch([(plan, 0.5), (plan, 0.25)])
        results.append((len(plan.groups), snapshot(own)))
    assert [count for count, _ in results] == [4, 3]
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_factors_kept_as_they_were_stored_take_half_the_bytes_and_give_the_same_weights(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    models, changed = [TinyModel().to(dtype) for _ in range(2)], []
    for as_stored, model in zip((False, True), models, strict=True):
        plans = []
        for seed, alpha in enumerate((1.5, None)):
            layers = {
                name: replace(layer, down=layer.down.half(), up=layer.up.half())
                for name, layer in random_layers(model, TINY_LAYERS, seed=seed, rank=3, alpha=alpha).items()
            }
            path = write_lora(tmp_path / f"lora{seed}.safetensors", layers)
            plans.append(
                build_plan(read_lora(path, "lora"), ModelLayers.of({"unet": model}), as_stored=as_stored)
            )
        WeightPatcher({"unet": model}).patch([(plan, 0.7) for plan in plans])
        changed.append((snapshot(model), sum(group.up.nbytes for plan in plans for group in plan.groups)))
    (widened, many), (stored, few) = changed
    assert all(torch.equal(widened[name], stored[name]) for name in widened)
    assert not is_identical(TinyModel().to(dtype), stored)
    assert many == 2 * few


def test_half_weights_that_two_loras_change_at_once_are_written_once(
    plans: list[DeltaPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TinyModel().to(torch.bfloat16)
    saved, uses = snapshot(model), [(plans[0], 0.5), (plans[1], 1.0)]
    added: list[Any] = []
    monkeypatch.setattr(patcher_module, "add_products", lambda *arguments: added.append(arguments))
    patcher = WeightPatcher({"unet": model})
    report = patcher.patch(uses)
    assert added == []
    assert (report.patched_weights, report.factor_bytes) == (4, plans[0].num_bytes + plans[1].num_bytes)
    monkeypatch.undo()
    one_by_one = TinyModel().to(torch.bfloat16)
    other = WeightPatcher({"unet": one_by_one})
    for use in uses:
        other.patch([use])
    assert is_identical(model, snapshot(one_by_one))
    patcher.restore()
    assert is_identical(model, saved)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_is_patched_from_host_and_device_factors_alike(
    plans: list[DeltaPlan], budget: int | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = TinyModel().to("cuda", dtype)
    saved = snapshot(model)
    uses = [(plans[0].pinned(), 0.5), (plans[1].to("cuda"), 1.0)]
    expected = exact(model, uses, tmp_path)
    patcher = WeightPatcher({"unet": model}, device_budget_bytes=budget)
    patcher.patch(uses)
    for name, value in expected.items():
        weight = model.get_parameter(f"{name}.weight")
        torch.testing.assert_close(weight.detach(), value.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)
    patcher.restore()
    assert is_identical(model, saved)


def test_who_keeps_copies_of_weights_hears_of_every_change_and_of_nothing_else(
    model: TinyModel, plans: list[DeltaPlan]
) -> None:
    heard: list[dict[str, torch.Tensor]] = []
    patcher = WeightPatcher({"unet": model}, on_change=lambda: heard.append(snapshot(model)))
    pristine = snapshot(model)
    patcher.restore()
    patcher.apply_set([])
    assert heard == []
    patcher.patch([(plans[0], 0.7)])
    patched = snapshot(model)
    patcher.apply_set([(plans[0], 0.7)])
    patcher.restore()
    assert len(heard) == 2
    assert is_identical(model, pristine)
    for there, expected in zip(heard, (patched, pristine), strict=True):
        assert all(torch.equal(there[name], value) for name, value in expected.items())
