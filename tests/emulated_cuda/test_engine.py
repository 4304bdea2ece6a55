"""Serves requests on emulated GPUs: pictures are the CPU's, and no stream reads what is not there yet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from emulated_cuda import NEEDS_NO_GPU
from emulated_streams import Machine
from gpu import SWITCHES, on_gpu
from serving import LORAS, Outcome, draw_controls, engine, largest_difference, replay, with_adapters

pytestmark = NEEDS_NO_GPU

#: Adapters leave memory as soon as nobody holds them.
NO_ROOM = {"controlnet_device_mb": 0.001, "controlnet_cache_mb": 0.001, "lora_cache_mb": 0.001}
TWO_GPUS = SWITCHES["all"] | {"lanes": ("cuda:0", "cuda:1")} | NO_ROOM
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "two GPUs": TWO_GPUS | {"decode_lane": "cuda:1", "pristine_device_mb": 0.0},
    "two GPUs, eager, decoded on the host": TWO_GPUS
    | {"graph_replay": False, "prefetch": False, "decode_lane": "cpu:0"},
}
REQUESTS = [
    with_adapters(number % 3 + 1, loras, f"r{number}")
    for number, loras in enumerate(((), LORAS[:1], LORAS, LORAS[1:]))
]


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_controls(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def on_the_cpu(tiny_family: Path, controls: Path) -> list[Outcome]:
    with engine(tiny_family / "base", lanes=("cpu:0",)) as system:
        return replay(system, REQUESTS, controls)


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_pictures_are_those_of_the_cpu(
    name: str, on_the_cpu: list[Outcome], machine: Machine, tiny_family: Path, controls: Path
) -> None:
    with on_gpu(tiny_family / "base", **ARRANGEMENTS[name]) as system:
        found = replay(system, REQUESTS, controls)
    assert [outcome.error for outcome in found] == [None] * len(REQUESTS)
    for one, other in zip(found, on_the_cpu, strict=True):
        assert largest_difference(one.pictures, other.pictures) <= 1
    captured = [outcome.served.graphs_captured for outcome in found]
    assert captured[3] == 0
    assert any(captured) == ARRANGEMENTS[name]["graph_replay"]


def test_steps_wait_for_the_gpu_by_their_pace_alone(
    machine: Machine, tiny_family: Path, controls: Path
) -> None:
    waits: list[Counter[str]] = []
    with on_gpu(tiny_family / "base", **ARRANGEMENTS["two GPUs, eager, decoded on the host"]) as system:
        for num_steps in (2, 2, 5):  # the first makes copies of the weights
            machine.waits.clear()
            replay(system, [with_adapters(1, LORAS, num_inference_steps=num_steps)], controls)
            waits.append(machine.waits.copy())
    more = waits[2] - waits[1]
    assert sum(more.values()) == 3
    assert all(line.startswith("pace.py") for line in more)
