"""Checks that the loop gives the stock pipelines' latents, whatever is switched on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pipeline_family import Case, Family

from swiftdiff.errors import ConfigError
from swiftdiff.models.loading import make_scheduler
from swiftdiff.models.presets import build_preset, build_preset_controlnet
from swiftdiff.pipeline.denoise import Denoiser
from swiftdiff.pipeline.graphs import ReplayKind
from swiftdiff.pipeline.inputs import encode_prompts
from swiftdiff.pipeline.job import StepChange
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas

Lanes = tuple[Lane, Lane]
# Guidance halves computed apart are rounded otherwise than in one batch; latents here reach 20.
APART = {"atol": 5e-4, "rtol": 0.0}

CASES = {
    "plain": Case(),
    "no guidance": Case(guidance_scale=1.0, controlnets=1),
    "no negative prompt": Case(negative_prompt=None, controlnets=1, scheduler="ddim"),
    "two ControlNets, DPM++ 2M": Case(controlnets=2, scheduler="dpmpp_2m"),
    "three ControlNets, four wide pictures": Case(controlnets=3, num_images=4, size=(96, 64), steps=3),
    "odd latents": Case(controlnets=1, size=(68, 60), scheduler="ddim"),
    "windows": Case(
        controlnets=3, steps=5, starts=(0.0, 0.4, 0.9), ends=(0.3, 1.0, 1.0), scales=(1.0, 0.7, 2.0)
    ),
    "a scale of zero": Case(controlnets=2, scales=(0.0, 1.0, 1.0)),
}


def place(name: str, lanes: Lanes) -> Placement:
    first, second = lanes
    return {
        "one lane": Placement((first,)),
        "offload": Placement((first,), (second,)),
        "latent parallelism": Placement((first, second)),
        "both": Placement((first, second), (first, second)),
        "both, ControlNets on one": Placement((first, second), (second,)),
    }[name]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_lane_and_offload_give_stock_latents_bit_for_bit(
    case: Case, family: Family, lanes: Lanes
) -> None:
    expected = family.stock_latents(case)
    for placement in ("one lane", "offload"):
        for reuse in (False, True):
            denoiser = Denoiser(family.unets(), place(placement, lanes), reuse_invariants=reuse)
            assert torch.equal(denoiser.denoise(family.job(case)).latents, expected), (placement, reuse)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_halves_on_two_lanes_give_stock_latents_up_to_rounding(
    case: Case, family: Family, lanes: Lanes
) -> None:
    expected = family.stock_latents(case)
    for placement in ("latent parallelism", "both", "both, ControlNets on one"):
        latents = Denoiser(family.unets(), place(placement, lanes)).denoise(family.job(case)).latents
        torch.testing.assert_close(latents, expected, **APART)


@pytest.mark.parametrize(
    ("placement", "replay"), [("offload", "traced"), ("both", "traced"), ("both", "eager")]
)
def test_graphs_change_nothing(placement: str, replay: ReplayKind, family: Family, lanes: Lanes) -> None:
    case = Case(controlnets=2, num_images=2, scheduler="dpmpp_2m")
    eager = Denoiser(family.unets(), place(placement, lanes)).denoise(family.job(case)).latents
    unets = family.unets(replay)
    for reuse in (True, False):
        denoiser = Denoiser(unets, place(placement, lanes), reuse_invariants=reuse)
        assert torch.equal(denoiser.denoise(family.job(case, replay)).latents, eager)


def test_sdxls_topology_gives_stock_latents_bit_for_bit(lanes: Lanes) -> None:
    thin = Family(build_preset("sdxl-thin"), [build_preset_controlnet("sdxl-thin", "edges")])
    case = Case(controlnets=1, steps=2, size=(72, 64))
    expected = thin.stock_latents(case)
    for placement in ("offload", "both"):
        latents = Denoiser(thin.unets(), place(placement, lanes)).denoise(thin.job(case)).latents
        torch.testing.assert_close(latents, expected, **APART)
        if placement == "offload":
            assert torch.equal(latents, expected)


@pytest.mark.parametrize("replay", ["eager", "traced"])
def test_weights_patched_before_a_step_act_from_that_step_on(
    replay: ReplayKind, family: Family, lanes: Lanes
) -> None:
    case = Case(controlnets=1, steps=4)
    unet = family.base.unet
    weights = {name: value.clone() for name, value in unet.state_dict().items()}

    def patch() -> None:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if name.endswith(("to_k.weight", "to_q.weight", "linear_1.weight")):
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)

    def stock_callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            patch()
        return {}

    def before_step(step: int) -> StepChange | None:
        if step != 2:
            return None
        patch()
        return StepChange()

    unpatched = family.stock_latents(case)
    expected = family.stock_latents(case, stock_callback)
    unet.load_state_dict(weights)
    assert not torch.equal(expected, unpatched)
    denoiser = Denoiser(family.unets(replay), place("offload", lanes))
    assert torch.equal(denoiser.denoise(family.job(case, replay), before_step).latents, expected)
    unet.load_state_dict(weights)
    assert torch.equal(denoiser.denoise(family.job(case, replay)).latents, unpatched)


def test_a_prompt_encoded_again_reaches_unet_and_controlnets(family: Family, lanes: Lanes) -> None:
    case = Case(controlnets=1)
    other = case.but(prompt="b w e", negative_prompt="z")
    width, height = other.size
    encoded = encode_prompts(
        family.base, other.prompt, other.negative_prompt,
        guidance_scale=5.0, num_images=1, width=width, height=height,
    )  # fmt: skip
    denoiser = Denoiser(family.unets(), place("offload", lanes))
    latents = denoiser.denoise(
        family.job(case), lambda step: StepChange(*encoded) if step == 0 else None
    ).latents
    assert torch.equal(latents, family.stock_latents(other))


def test_a_controlnet_outside_its_window_is_not_computed(family: Family, lanes: Lanes) -> None:
    calls = 0

    def count(module: Any, arguments: Any) -> None:
        nonlocal calls
        calls += 1

    family.controlnets[0].conv_in.register_forward_pre_hook(count)
    case = Case(controlnets=1, steps=5, starts=(0.4, 0.0, 0.0), ends=(0.8, 1.0, 1.0))
    Denoiser(family.unets(), place("one lane", lanes)).denoise(family.job(case))
    assert calls == 2


def test_what_the_hook_raises_ends_the_request_and_the_next_is_served(family: Family, lanes: Lanes) -> None:
    case = Case(controlnets=1)
    denoiser = Denoiser(family.unets(), place("both", lanes))

    def cancel(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoiser.denoise(family.job(case), cancel)
    torch.testing.assert_close(
        denoiser.denoise(family.job(case)).latents, family.stock_latents(case), **APART
    )


def test_when_a_lane_fails_no_lane_works_on_and_the_caller_sees_why(family: Family, lanes: Lanes) -> None:
    job = family.job(Case(controlnets=1))
    running = 0

    def slow(module: Any, arguments: Any) -> None:
        nonlocal running
        running += 1
        time.sleep(0.05)

    def done(module: Any, arguments: Any, output: Any) -> None:
        nonlocal running
        running -= 1

    def fail(module: Any, arguments: Any) -> None:
        raise ValueError("no memory")

    family.base.unet.down_blocks[0].register_forward_pre_hook(slow)
    family.base.unet.down_blocks[0].register_forward_hook(done)
    family.controlnets[0].conv_in.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="no memory"):
        Denoiser(family.unets(), place("offload", lanes)).denoise(job)
    assert running == 0


@pytest.mark.parametrize("seed", range(3))
def test_delays_on_lanes_change_no_bit(
    seed: int, family: Family, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(controlnets=2, steps=3)
    calm = Denoiser(family.unets(), place("both, ControlNets on one", lanes)).denoise(family.job(case))
    rng = random.Random(seed)
    compute: Callable[..., None] = Lane._compute

    def delayed(self: Lane, *arguments: Any) -> None:
        time.sleep(rng.random() * 0.004)
        compute(self, *arguments)

    monkeypatch.setattr(Lane, "_compute", delayed)
    for placement in ("both, ControlNets on one", "both"):
        hurried = Denoiser(family.unets(), place(placement, lanes)).denoise(family.job(case))
        assert torch.equal(hurried.latents, calm.latents)


def test_requests_with_a_scheduler_of_their_own_leave_the_models_alone(family: Family, lanes: Lanes) -> None:
    family.base.scheduler = make_scheduler("euler", family.base.scheduler.config)
    before = dict(vars(family.base.scheduler))
    Denoiser(family.unets(), place("one lane", lanes)).denoise(family.job(Case(steps=2)))
    assert {key: vars(family.base.scheduler)[key] is value for key, value in before.items()} == dict.fromkeys(
        before, True
    )


def test_without_guidance_a_negative_prompt_costs_nothing(family: Family, lanes: Lanes) -> None:
    case = Case(guidance_scale=1.0)
    job = replace(family.job(case), negative_prompt=family.job(case).prompt)
    latents = Denoiser(family.unets(), place("latent parallelism", lanes)).denoise(job).latents
    assert torch.equal(latents, family.stock_latents(case))


def test_a_lane_whose_device_has_no_unet_is_refused(lanes: Lanes) -> None:
    with pytest.raises(ConfigError, match="UNet is on cuda:0, but lane cpu:0 needs it on cpu"):
        Denoiser(Replicas("the UNet", {torch.device("cuda:0"): None}), place("one lane", lanes))  # type: ignore[dict-item]
