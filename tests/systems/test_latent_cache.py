"""What is found in a cache of latents, and what leaves it when it is full."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from swiftdiff.config import NirvanaConfig
from swiftdiff.systems.latent_cache import LatentCache

STEPS = 20
SKIPS = ((0.5, 0.25), (0.9, 0.5))  # steps 5 and 10
LATENTS_BYTES = 4 * 8 * 8 * 4
EMBEDDING_BYTES = 2 * 4


def prompt(degrees: float) -> torch.Tensor:
    """Return an embedding whose similarity to ``prompt(0)`` is the angle's cosine."""
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle)]) * 7


def latents(value: float, pictures: int = 1) -> dict[int, torch.Tensor]:
    return {step: torch.full((pictures, 4, 8, 8), float(value + step)) for step in (5, 10)}


def make_cache(num_bytes: float = 1e9, **fields: Any) -> LatentCache:
    return LatentCache(NirvanaConfig(skips=SKIPS, cache_mb=num_bytes / 1e6, **fields))


def found_step(cache: LatentCache, degrees: float, kind: str = "kind") -> int | None:
    found = cache.find(kind, prompt(degrees), STEPS, 1)
    return None if found is None else found.step


def test_the_most_similar_prompt_decides_how_many_steps_are_skipped() -> None:
    cache = make_cache()
    cache.put("kind", prompt(0), latents(100))
    cache.put("kind", prompt(50), latents(200))
    for degrees, step, value in ((0, 10, 110), (20, 10, 110), (49, 10, 210), (75, 10, 210), (105, 5, 205)):
        found = cache.find("kind", prompt(degrees), STEPS, 1)
        assert found is not None
        assert found.step == step
        assert found.latents is not None
        assert torch.equal(found.latents, torch.full((1, 4, 8, 8), float(value)))
    far = cache.find("kind", prompt(180), STEPS, 1)
    assert far is not None
    assert far.similarity == pytest.approx(math.cos(math.radians(130)), abs=1e-5)
    assert far.step == 0
    assert far.latents is None


def test_steps_are_shares_of_the_requests_steps() -> None:
    cache = make_cache()
    assert cache.steps_to_keep(20) == (5, 10)
    assert cache.steps_to_keep(50) == (12, 25)
    assert cache.steps_to_keep(2) == (1,)  # round(0.5) is 0
    assert cache.steps_to_keep(1) == ()
    assert LatentCache(NirvanaConfig()).steps_to_keep(50) == (5, 10, 15, 20, 25)  # the paper's


def test_other_kinds_and_too_few_pictures_are_not_compared() -> None:
    cache = make_cache()
    assert found_step(cache, 0) is None
    cache.put("kind", prompt(0), latents(0, pictures=2))
    assert found_step(cache, 0, "other") is None
    assert cache.find("kind", prompt(0), STEPS, 3) is None
    found = cache.find("kind", prompt(0), STEPS, 1)
    assert found is not None
    assert found.latents is not None
    assert len(found.latents) == 1


def test_a_full_cache_puts_out_what_saves_least_and_its_place_takes_an_earlier_step() -> None:
    one = 2 * LATENTS_BYTES + EMBEDDING_BYTES
    cache = make_cache(2 * one)
    cache.put("kind", prompt(0), latents(0))
    cache.put("kind", prompt(90), latents(0))
    assert cache.used_bytes == 2 * one
    assert found_step(cache, 0) == 10
    for _ in range(3):
        assert found_step(cache, 140) == 5  # of the prompt at 90, 50 degrees away: 4 uses x 5 steps
    cache.put("kind", prompt(180), latents(0))
    # 5 steps used once are least: the first prompt's go, and the embedding's room costs another's.
    assert cache.used_bytes <= 2 * one
    assert found_step(cache, 0) == 10
    assert found_step(cache, 60) == 5  # of the prompt at 90
    assert found_step(cache, -59) == 0  # of the prompt at 0, whose latents at step 5 are gone


def test_least_recently_used_leaves_first_if_asked() -> None:
    one = 2 * LATENTS_BYTES + EMBEDDING_BYTES
    cache = make_cache(2 * one, eviction="lru")
    cache.put("kind", prompt(0), latents(0))
    cache.put("kind", prompt(90), latents(0))
    assert found_step(cache, 0) == 10
    cache.put("kind", prompt(180), latents(0))
    assert found_step(cache, 0) == 10
    assert found_step(cache, 180) == 10


@pytest.mark.parametrize("num_bytes", [0, LATENTS_BYTES])
def test_a_cache_too_small_for_one_latent_stays_empty(num_bytes: int) -> None:
    cache = make_cache(num_bytes)
    cache.put("kind", prompt(0), latents(0))
    assert len(cache) == 0
    assert cache.used_bytes == 0
    assert found_step(cache, 0) is None


def test_many_prompts_keep_within_the_budget() -> None:
    cache = make_cache(10 * LATENTS_BYTES)
    for degrees in range(100):
        cache.put("kind", prompt(degrees), latents(degrees))
        assert cache.used_bytes <= 10 * LATENTS_BYTES
    assert 0 < len(cache) <= 10


def test_a_request_too_short_to_skip_any_step_is_not_kept() -> None:
    cache = make_cache()
    cache.put("kind", prompt(0), {})
    assert len(cache) == 0
