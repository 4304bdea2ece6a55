"""Runs worlds on an emulated GPU: the clips are the CPU's, and its streams wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_cuda import NEEDS_NO_GPU, emulated_cuda
from emulated_streams import Machine
from tiny_world import save_tiny_world
from world_hooks import config, make

from swiftdiff.world.config import CacheConfig
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import load_world

pytestmark = NEEDS_NO_GPU

GUIDED = {"guidance_scale": 3.0, "latent_parallelism": True}
WORLDS: dict[str, dict[str, Any]] = {
    "guidance on two lanes": GUIDED,
    "past on the host, two lanes": GUIDED | {"cache": CacheConfig(window_blocks=2, storage="host")},
    "int8 on the host, with a sink": {
        "cache": CacheConfig(policy="window+sink", window_blocks=2, storage="host", dtype="int8")
    },
}


def clip(
    folder: Path, device: str, after_blocks: Callable[[], None] = lambda: None, **of: Any
) -> torch.Tensor:
    with (
        WorldEngine(load_world(folder, device), config(**of)) as engine,
        engine.open("red ball at 8,20 moving 1.2,-0.7", seed=1) as session,
    ):
        blocks = make(session, 3)
        session.steer("push left")
        after_blocks()
        blocks += make(session, 2)
        return torch.cat([block.latents.cpu() for block in blocks])


@pytest.mark.parametrize("name", WORLDS)
def test_clips_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    folder = save_tiny_world(tmp_path)
    expected = clip(folder, "cpu", **WORLDS[name])
    with emulated_cuda():
        found = clip(folder, "cuda:0", **WORLDS[name])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_no_pass_waits_for_the_gpu(machine: Machine, tmp_path: Path) -> None:
    clip(save_tiny_world(tmp_path), "cuda:0", machine.waits.clear, **GUIDED)
    waited = {line.partition(":")[0] for line in machine.waits}
    assert "decoding.py" in waited  # for a block's frames
    assert not waited & {"attention.py", "cross_cache.py", "guidance.py", "kv_stores.py", "kv_cache.py"}
    in_passes = sum(times for line, times in machine.waits.items() if line.startswith("causal.py"))
    assert in_passes == 1  # a new prompt's copy; the two blocks have ten passes in each half
