from __future__ import annotations

import itertools

import pytest

from swiftdiff.compare.ablation import OFF, SWITCHES, ablation_steps
from swiftdiff.config import ServingConfig, SwiftdiffConfig
from swiftdiff.errors import ConfigError
from swiftdiff.report.waterfall import switches_on


def config(name: str, **switches: object) -> ServingConfig:
    return ServingConfig(
        name=name, engine="swiftdiff", model="m", swiftdiff=SwiftdiffConfig.model_validate(switches)
    )


STOCK = ServingConfig(name="stock", engine="diffusers", model="m")


def test_each_step_has_one_more_switch_on_up_to_the_system_itself() -> None:
    last = config("full")
    steps = [*ablation_steps([STOCK, config("bal", bal_k=3), last]), last]
    assert [step.name for step in steps] == [OFF, *list(SWITCHES.values())[:-1], "full"]
    sets = [switches_on(step.model_dump(mode="json")) for step in steps]
    assert [len(each) for each in sets] == list(range(len(SWITCHES) + 1))
    assert all(before < after for before, after in itertools.pairwise(sets))


def test_what_is_off_stays_off_and_what_is_no_switch_stays() -> None:
    steps = ablation_steps([config("mine", graph_replay=False, lora_cache_mb=5.0)])
    assert len(steps) == len(SWITCHES) - 1
    assert not any(step.swiftdiff.graph_replay for step in steps)
    assert {step.swiftdiff.lora_cache_mb for step in steps} == {5.0}


def test_without_a_switch_to_take_off_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="no system has it"):
        ablation_steps([STOCK])
    with pytest.raises(ConfigError, match="no switch on"):
        ablation_steps([config("off", **dict.fromkeys(SWITCHES, False))])
