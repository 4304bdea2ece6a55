"""What approximate switches leave out, against stock pipelines that are made to leave out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from families import build_unet
from pipeline_family import Case, Family

from swiftdiff.errors import ModelError
from swiftdiff.models.presets import build_preset, build_preset_controlnet
from swiftdiff.pipeline.approximations import Approximations, Kept
from swiftdiff.pipeline.denoise import BeforeStep, Denoiser
from swiftdiff.pipeline.graphs import ReplayKind
from swiftdiff.pipeline.job import StepChange
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.placement import Placement

Lanes = tuple[Lane, Lane]
APART = {"atol": 5e-4, "rtol": 0.0}  # guidance's halves in batches of their own are rounded otherwise
STEPS = 6
REPLAYS: tuple[ReplayKind, ...] = ("eager", "traced")
CASES = {
    "no ControlNet": Case(steps=STEPS),
    "no guidance": Case(steps=STEPS, controlnets=1, guidance_scale=1.0),
    "two ControlNets, two pictures": Case(steps=STEPS, controlnets=2, num_images=2, scheduler="dpmpp_2m"),
    "windows": Case(
        steps=STEPS, controlnets=2, starts=(0.0, 0.4, 0.0), ends=(0.5, 1.0, 1.0), scheduler="ddim"
    ),
    "odd latents": Case(steps=STEPS, controlnets=1, size=(68, 60)),
}
EVERYTHING = Approximations(controlnet_reuse=2, guidance_interval=(1.0, 4.0), step_cache=3)


def denoise(
    family: Family,
    case: Case,
    placement: Placement,
    approximations: Approximations,
    replay: ReplayKind = "eager",
    *,
    before_step: BeforeStep = lambda step: None,
    **options: Any,
) -> torch.Tensor:
    shallow = approximations.step_cache > 1
    unets = family.unets(replay, shallow=shallow)
    denoiser = Denoiser(unets, placement, approximations=approximations, **options)
    return denoiser.denoise(family.job(case, replay, shallow=shallow), before_step).latents


def placements(lanes: Lanes) -> dict[str, Placement]:
    first, second = lanes
    return {
        "one lane": Placement((first,)),
        "offload": Placement((first,), (second,)),
        "latent parallelism": Placement((first, second)),
        "both": Placement((first, second), (first, second)),
        "both, ControlNets on one": Placement((first, second), (second,)),
    }


def assert_equal_on_all_lanes(
    family: Family, case: Case, lanes: Lanes, approximations: Approximations, expected: torch.Tensor
) -> None:
    for name, placement in placements(lanes).items():
        latents = denoise(family, case, placement, approximations)
        if name in ("one lane", "offload"):
            assert torch.equal(latents, expected), name
        torch.testing.assert_close(latents, expected, **APART)


class StockDeepCache:
    """Makes the stock UNet's last up block read, at steps between every m-th, what it read at that one."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.kept: torch.Tensor | None = None
        self.age = 0

    def __call__(self, module: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if self.kept is None or self.age == self.num_steps:
            self.kept, self.age = named["hidden_states"].clone(), 0
        self.age += 1
        return arguments, {**named, "hidden_states": self.kept}


@contextmanager
def stock_deep_cache(family: Family, num_steps: int) -> Iterator[StockDeepCache]:
    hook = StockDeepCache(num_steps)
    handle = family.base.unet.up_blocks[-1].register_forward_pre_hook(hook, with_kwargs=True)
    yield hook
    handle.remove()


@contextmanager
def stock_reuse(family: Family, num_steps: int) -> Iterator[None]:
    """Make stock ControlNets return for m calls what the first of them gave."""
    forwards = [controlnet.forward for controlnet in family.controlnets]
    for controlnet in family.controlnets:
        controlnet.forward = remember(controlnet.forward, num_steps)
    yield
    for controlnet, forward in zip(family.controlnets, forwards, strict=True):
        controlnet.forward = forward


def remember(forward: Callable[..., Any], num_steps: int) -> Callable[..., Any]:
    calls, kept = 0, None

    def reusing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls, kept
        if calls % num_steps == 0:
            down, middle = forward(*arguments, **named)
            kept = tuple(tensor.clone() for tensor in down), middle.clone()
        calls += 1
        assert kept is not None
        return [tensor.clone() for tensor in kept[0]], kept[1].clone()

    return reusing


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_step_cache_of_one_step_and_a_full_interval_give_stock_latents(
    case: Case, family: Family, lanes: Lanes
) -> None:
    expected = family.stock_latents(case)
    assert_equal_on_all_lanes(family, case, lanes, Approximations(guidance_interval=(0.0, 1e4)), expected)
    placement = placements(lanes)["offload"]
    job, unets = family.job(case, shallow=True), family.unets(shallow=True)  # the full path in its parts
    assert torch.equal(Denoiser(unets, placement).denoise(job).latents, expected)


@pytest.mark.parametrize("num_steps", [2, 4, 50])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_step_cache_equals_stock_whose_last_block_reads_old_features(
    case: Case, num_steps: int, family: Family, lanes: Lanes
) -> None:
    with stock_deep_cache(family, num_steps):
        expected = family.stock_latents(case)
    assert not torch.allclose(expected, family.stock_latents(case), atol=1e-3)
    assert_equal_on_all_lanes(family, case, lanes, Approximations(step_cache=num_steps), expected)


def test_a_step_cache_equals_stock_in_sdxls_topology(lanes: Lanes) -> None:
    thin = Family(build_preset("sdxl-thin"), [build_preset_controlnet("sdxl-thin", "edges")])
    case = Case(controlnets=1, steps=3, size=(72, 64))
    with stock_deep_cache(thin, 2):
        expected = thin.stock_latents(case)
    for replay in REPLAYS:
        latents = denoise(thin, case, placements(lanes)["offload"], Approximations(step_cache=2), replay)
        assert torch.equal(latents, expected)


@pytest.mark.parametrize("num_steps", [2, 50])
@pytest.mark.parametrize("name", ["two ControlNets, two pictures", "odd latents", "no guidance"])
def test_reused_residuals_equal_stock_whose_controlnets_repeat_themselves(
    name: str, num_steps: int, family: Family, lanes: Lanes
) -> None:
    case = CASES[name]
    with stock_reuse(family, num_steps):
        expected = family.stock_latents(case)
    assert not torch.allclose(expected, family.stock_latents(case), atol=1e-3)
    assert_equal_on_all_lanes(family, case, lanes, Approximations(controlnet_reuse=num_steps), expected)


def test_residuals_are_computed_at_every_mth_step_of_each_window(family: Family, lanes: Lanes) -> None:
    case = Case(controlnets=2, steps=10, starts=(0.0, 0.3, 0.0), ends=(0.6, 1.0, 1.0))
    calls = [0, 0]
    for index in range(2):
        family.controlnets[index].conv_in.register_forward_pre_hook(
            lambda module, arguments, index=index: calls.__setitem__(index, calls[index] + 1)
        )
    denoise(family, case, placements(lanes)["one lane"], Approximations(controlnet_reuse=3))
    assert calls == [2, 3]  # steps 0 and 3 of 0 to 5; steps 3, 6 and 9 of 3 to 9


@pytest.mark.parametrize("interval", [(1.0, 4.0), (0.0, 2.0), (2.0, 100.0), (50.0, 100.0)])
@pytest.mark.parametrize("name", ["no ControlNet", "two ControlNets, two pictures", "windows"])
def test_outside_the_interval_noise_is_the_prompts_alone(
    name: str, interval: tuple[float, float], family: Family, lanes: Lanes
) -> None:
    case = CASES[name]
    schedule = family.job(case).schedule
    step = 0

    def forget_the_negative_prompt(module: Any, arguments: Any, output: Any) -> Any:
        nonlocal step
        inside = interval[0] < schedule.noise_level(step) <= interval[1]
        step += 1
        return output if inside else (torch.cat([output[0].chunk(2)[1]] * 2),)

    handle = family.base.unet.register_forward_hook(forget_the_negative_prompt)
    expected = family.stock_latents(case)
    handle.remove()
    assert not torch.allclose(expected, family.stock_latents(case), atol=1e-3)
    for placement in placements(lanes).values():
        latents = denoise(family, case, placement, Approximations(guidance_interval=interval))
        torch.testing.assert_close(latents, expected, **APART)
        elsewhere = denoise(
            family,
            case,
            placement,
            Approximations(guidance_interval=interval),
            unguided=placements(lanes)["one lane"],
        )
        torch.testing.assert_close(elsewhere, expected, **APART)


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "ddim"])
def test_noise_levels_fall_and_are_the_schedulers(scheduler: str, family: Family) -> None:
    schedule = family.job(Case(scheduler=scheduler, steps=20)).schedule
    levels = [schedule.noise_level(step) for step in range(len(schedule))]
    assert levels == sorted(levels, reverse=True)
    alphas = family.base.scheduler.alphas_cumprod
    for timestep, level in zip(schedule.timesteps, levels, strict=True):
        kept = float(alphas[int(timestep)])
        assert level == pytest.approx(((1 - kept) / kept) ** 0.5, rel=1e-4)


def test_a_patch_drops_deep_features_of_the_old_weights(family: Family, lanes: Lanes) -> None:
    case = Case(controlnets=1, steps=STEPS)
    unet = family.base.unet
    weights = {name: value.clone() for name, value in unet.state_dict().items()}

    def patch() -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if name.endswith(("to_k.weight", "to_q.weight", "conv1.weight")):
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)

    def before_step(step: int) -> StepChange | None:
        if step != 2:
            return None
        patch()
        return StepChange()

    with stock_deep_cache(family, 4) as cache:

        def stock_callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == 1:
                patch()
                cache.kept = None
            return {}

        expected = family.stock_latents(case, stock_callback)
    for replay in REPLAYS:
        unet.load_state_dict(weights)
        placement = placements(lanes)["offload"]
        latents = denoise(
            family, case, placement, Approximations(step_cache=4), replay, before_step=before_step
        )
        assert torch.equal(latents, expected)
    unet.load_state_dict(weights)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_together_lanes_and_graphs_change_nothing(case: Case, family: Family, lanes: Lanes) -> None:
    several = placements(lanes)
    expected = denoise(family, case, several["one lane"], EVERYTHING)
    assert not torch.allclose(expected, family.stock_latents(case), atol=1e-3)
    for placement in several.values():
        eager = denoise(family, case, placement, EVERYTHING)
        torch.testing.assert_close(eager, expected, **APART)
        for reuse in (True, False):
            traced = denoise(family, case, placement, EVERYTHING, "traced", reuse_invariants=reuse)
            assert torch.equal(traced, eager)


def test_without_controlnets_and_guidance_their_switches_do_nothing(family: Family, lanes: Lanes) -> None:
    case = Case(guidance_scale=1.0)
    approximations = Approximations(controlnet_reuse=5, guidance_interval=(1.0, 2.0))
    latents = denoise(family, case, placements(lanes)["both"], approximations)
    assert torch.equal(latents, family.stock_latents(case))


def test_a_unet_without_deep_blocks_is_refused() -> None:
    unet = build_unet()
    unet.up_blocks = unet.up_blocks[-1:]
    with pytest.raises(ModelError, match="a single up block: no deep features that step_cache could keep"):
        SplitUNet(unet, with_shallow_path=True)


def test_what_is_kept_serves_later_steps_only_and_only_so_many() -> None:
    kept = Kept(3)
    assert not kept.serves(0)
    kept.computed(4)
    assert [step for step in range(10) if kept.serves(step)] == [5, 6]
    once = Kept(1)
    once.computed(0)
    assert not once.serves(1)
