"""Checks lanes on several GPUs of one process: tensors come by peer copies, weights are patched on each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gpu import NEEDS_TWO_GPUS, SWITCHES, on_gpu
from serving import LORAS, largest_difference, replay, with_adapters

from swiftdiff.pipeline.lane import Lane

pytestmark = NEEDS_TWO_GPUS


@pytest.mark.parametrize("name", ["latent parallelism", "offload", "all"])
def test_lanes_on_two_gpus_make_the_pictures_of_one(name: str, tiny_family: Path, controls: Path) -> None:
    sets = ((), LORAS, LORAS[:1])
    requests = [with_adapters(3, loras, f"r{number}") for number, loras in enumerate(sets)]
    with on_gpu(tiny_family / "base", **SWITCHES[name]) as system:
        expected = replay(system, requests, controls)
    switches = SWITCHES[name] | {"lanes": ("cuda:0", "cuda:1")}
    with on_gpu(tiny_family / "base", **switches) as system:
        assert system.num_devices == 2
        found = replay(system, requests, controls)
    for one, other in zip(found, expected, strict=True):
        assert largest_difference(one.pictures, other.pictures) <= 1


def test_a_tensor_comes_to_a_lane_of_another_gpu_when_it_is_there() -> None:
    def slowly(value: float) -> torch.Tensor:
        busy = torch.ones(2048, 2048, device="cuda:0")
        for _ in range(20):
            busy = busy @ busy / 2048
        return busy * 0 + value

    with Lane("cuda:0") as near, Lane("cuda:1") as far:
        for value in range(20):
            made = near.submit(slowly, value)
            total = far.submit(lambda x: (x.device.index, x.sum(dtype=torch.float64)), made)
            index, sum_ = total.result()
            assert (index, sum_.item()) == (1, value * 2048**2)
            plain = far.submit(lambda x: x.sum(dtype=torch.float64), slowly(value))
            assert plain.result().item() == value * 2048**2
