"""The preset of random weights has bounce's shapes, sees its past, and is the same each time."""

from __future__ import annotations

import torch

from swiftdiff.world.bench.rollout import Roller
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.loading import load_world
from swiftdiff.world.presets import BOUNCE_RANDOM, build_bounce_random, default_world

SCENE = "red ball at 8,20 moving 1.2,-0.7"


def test_the_preset_is_loaded_by_name_and_is_the_same_each_time() -> None:
    before = torch.random.get_rng_state()
    one, again, other = load_world(BOUNCE_RANDOM), build_bounce_random(), build_bounce_random(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [world.causal.transformer.proj_out.weight for world in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 1_700_000 < sum(part.numel() for part in one.causal.transformer.parameters()) < 1_800_000


def test_its_blocks_depend_on_the_past() -> None:
    roller = Roller(build_bounce_random(), SCENE, seed=0)
    short = roller.cached(CacheConfig(window_blocks=1))
    long = roller.cached(CacheConfig(window_blocks=4))
    compared = roller.compare(3, short, long)
    assert compared.errors[:2] == (0, 0)
    assert compared.errors[2] > 1e-3 * compared.scale


def test_some_world_is_always_there_to_be_measured() -> None:
    assert default_world() in ("bounce", BOUNCE_RANDOM)
