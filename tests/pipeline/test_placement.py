"""Checks which lane computes what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.job import ControlInput
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas


def lane(name: str) -> Any:
    return SimpleNamespace(name=name, device=torch.device("cpu" if name.startswith("cpu") else name))


def control(*devices: str) -> ControlInput:
    network: Any = Replicas("ControlNet x", {torch.device(device): None for device in devices})
    return ControlInput(network, torch.zeros(1, 3, 8, 8))


def names(placement: Placement, own: Any, num_shards: int, on: ControlInput, count: int = 3) -> list[str]:
    return [placement.control_lane(on, index, own, num_shards).name for index in range(count)]


def test_without_offload_controlnets_stay_with_their_shard() -> None:
    a, b = lane("cpu:0"), lane("cpu:1")
    assert names(Placement((a, b)), b, 2, control("cpu")) == ["cpu:1"] * 3


def test_with_both_lanes_busy_each_shard_keeps_its_controlnets() -> None:
    a, b = lane("cpu:0"), lane("cpu:1")
    placement = Placement((a, b), (a, b))
    assert names(placement, a, 2, control("cpu")) == ["cpu:0"] * 3
    assert names(placement, a, 1, control("cpu")) == ["cpu:1", "cpu:0", "cpu:1"]


def test_lanes_of_their_own_take_turns_and_only_those_with_a_copy() -> None:
    unet = (lane("cuda:0"), lane("cuda:1"))
    placement = Placement(unet, (lane("cuda:2"), lane("cuda:3")))
    assert names(placement, unet[0], 2, control("cuda:2", "cuda:3")) == ["cuda:2", "cuda:3", "cuda:2"]
    assert names(placement, unet[1], 2, control("cuda:3")) == ["cuda:3"] * 3


@pytest.mark.parametrize("count", [0, 3])
def test_the_unet_has_one_or_two_lanes(count: int) -> None:
    with pytest.raises(ConfigError, match=f"unet lanes is {count}, but must be 1 or 2"):
        Placement(tuple(lane("cpu:0") for _ in range(count)))


def test_a_network_that_is_not_where_it_is_needed_is_named() -> None:
    with pytest.raises(ConfigError, match="ControlNet x is on cuda:2, but lane cpu:0 needs it on cpu"):
        control("cuda:2").network.on(lane("cpu:0"))
