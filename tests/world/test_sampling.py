from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor

from swiftdiff.world.config import SamplerConfig
from swiftdiff.world.sampling import block_noise, make_schedule

SHAPE = (1, 4, 3, 8, 8)


def stock_scheduler(config: SamplerConfig) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config.shift, stochastic_sampling=config.renoise)
    scheduler.set_timesteps(sigmas=list(config.sigmas))
    return scheduler


def test_the_default_levels_are_self_forcings() -> None:
    timesteps = make_schedule(SamplerConfig()).timesteps
    assert timesteps == pytest.approx((1000, 937.5, 2500 / 3, 625), rel=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig(),
        SamplerConfig(sigmas=(1.0, 0.9, 0.3), shift=3.0),
        SamplerConfig(sigmas=(0.7,), shift=1.0),
    ],
)
def test_levels_are_the_stock_schedulers(config: SamplerConfig) -> None:
    stock, schedule = stock_scheduler(config), make_schedule(config)
    assert list(schedule.sigmas) == stock.sigmas.tolist()
    assert list(schedule.timesteps) == stock.timesteps.tolist()


@pytest.mark.parametrize("renoise", [False, True])
def test_steps_are_the_stock_schedulers_bit_for_bit(renoise: bool) -> None:
    config = SamplerConfig(renoise=renoise)
    stock, schedule = stock_scheduler(config), make_schedule(config)
    generator = torch.Generator().manual_seed(0)
    theirs = ours = torch.randn(SHAPE, generator=generator)
    for step, timestep in enumerate(stock.timesteps):
        flow = torch.randn(SHAPE, generator=generator)
        state = torch.Generator().manual_seed(step)
        theirs = stock.step(flow, timestep, theirs, generator=state, return_dict=False)[0]
        noise = None
        if schedule.needs_noise(step):
            noise = randn_tensor(SHAPE, generator=torch.Generator().manual_seed(step))
        ours = schedule.step(ours, flow, step, noise)
        assert torch.equal(ours, theirs)


def test_only_steps_before_the_last_take_fresh_noise() -> None:
    schedule = make_schedule(SamplerConfig(renoise=True))
    assert [schedule.needs_noise(step) for step in range(4)] == [True, True, True, False]
    assert not any(make_schedule(SamplerConfig()).needs_noise(step) for step in range(4))


def test_a_blocks_noise_depends_on_seed_and_number_alone() -> None:
    first = block_noise(7, 3, 1, SHAPE)[0]
    torch.manual_seed(1)
    torch.randn(100)
    again = block_noise(7, 3, 4, SHAPE)
    assert torch.equal(first, again[0])
    others = [*again[1:], block_noise(7, 4, 1, SHAPE)[0], block_noise(8, 3, 1, SHAPE)[0]]
    assert not any(torch.equal(first, other) for other in others)


def test_noise_is_standard_normal() -> None:
    noise = block_noise(0, 0, 1, (100_000,))[0]
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
