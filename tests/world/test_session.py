from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from world_hooks import TWO_STEPS, Hooked, all_equal, config, latents, make, with_hooks, with_words

from swiftdiff.errors import RequestError
from swiftdiff.world.config import CacheConfig, SamplerConfig
from swiftdiff.world.decoding import to_frames, unstandardise
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.sampling import block_noise, make_schedule
from swiftdiff.world.session import Block

WAIT_S = 60  # until a test that hangs fails; no test waits for time to pass


@pytest.fixture(scope="module")
def world(tiny_world: Callable[[int], WorldModel]) -> WorldModel:
    return with_words(tiny_world(0))


@pytest.fixture
def hooked(world: WorldModel) -> tuple[WorldModel, Hooked]:
    return with_hooks(world)


@pytest.fixture(scope="module")
def engine(world: WorldModel) -> Iterator[WorldEngine]:
    with WorldEngine(world, config()) as opened:
        yield opened


@pytest.fixture(scope="module")
def cats(engine: WorldEngine) -> list[Block]:
    """Five blocks of a clip that runs alone and is not steered."""
    with engine.open("a cat", seed=1) as session:
        return make(session, 5)


def test_blocks_are_numbered_pictures(cats: list[Block], world: WorldModel) -> None:
    assert [block.index for block in cats] == [0, 1, 2, 3, 4]
    for block in cats:
        assert block.frames.dtype == np.uint8
        assert block.frames.shape[0] == world.settings.frames_per_block
        assert block.frames.shape[3] == 3
        assert tuple(block.latents.shape) == world.settings.block_shape


def test_pixels_are_the_whole_clips_as_stock_decodes_it(cats: list[Block], world: WorldModel) -> None:
    whole = torch.cat(latents(cats), dim=2)
    with torch.inference_mode():
        pixels = world.vae.decode(unstandardise(whole, world.vae)).sample
    assert np.array_equal(np.concatenate([block.frames for block in cats]), to_frames(pixels))


def test_a_seed_makes_the_same_clip_and_another_seed_another(engine: WorldEngine, cats: list[Block]) -> None:
    with engine.open("a cat", seed=1) as same, engine.open("a cat", seed=2) as other:
        assert all_equal(latents(make(same, 2)), latents(cats[:2]))
        assert not torch.equal(other.next_block().latents, cats[0].latents)


def test_a_block_is_there_before_its_commit_pass(hooked: tuple[WorldModel, Hooked]) -> None:
    model, causal = hooked
    may_commit = threading.Event()
    committing = threading.Event()

    def before(name: str, number: int) -> None:
        if name == "commit":
            committing.set()
            assert may_commit.wait(WAIT_S)

    causal.before = before
    with WorldEngine(model, config()) as engine:
        session = engine.open("a cat", seed=1)
        assert session.next_block().index == 0
        assert committing.wait(WAIT_S)  # by itself, though nobody asked for another block
        may_commit.set()
        assert session.next_block().index == 1


def test_the_commit_pass_is_what_later_blocks_see(world: WorldModel, cats: list[Block]) -> None:
    """A block by hand: noise, steps with the past's caches, nothing of the engine's."""
    causal, schedule = world.causal, make_schedule(TWO_STEPS)
    prompt = world.prompts.encode("a cat")
    cache = causal.new_cache(world.settings.block_shape, CacheConfig())
    with torch.inference_mode():
        for block in cats[:4]:
            causal.commit(block.latents, prompt, cache)
        expected = by_hand(world, cache, prompt, seed=1, index=4)
    assert schedule.num_steps == 2
    torch.testing.assert_close(cats[4].latents, expected, rtol=0, atol=1e-5)


def by_hand(world: WorldModel, cache: Any, prompt: torch.Tensor, seed: int, index: int) -> torch.Tensor:
    schedule = make_schedule(TWO_STEPS)
    noisy = block_noise(seed, index, 1, world.settings.block_shape)[0]
    for step, timestep in enumerate(schedule.timesteps):
        noisy = schedule.step(noisy, world.causal.predict(noisy, timestep, prompt, cache), step)
    return noisy


def test_steering_counts_from_the_next_block_on(engine: WorldEngine, cats: list[Block]) -> None:
    with engine.open("a cat", seed=1) as session:
        before = make(session, 2)
        session.steer("a dog")
        after = make(session, 2)
    assert [block.prompt for block in before + after] == ["a cat", "a cat", "a dog", "a dog"]
    assert all_equal(latents(before), latents(cats[:2]))
    assert not torch.equal(after[0].latents, cats[2].latents)


def test_steering_in_the_middle_of_a_block_leaves_that_block_as_it_is(
    hooked: tuple[WorldModel, Hooked], cats: list[Block]
) -> None:
    model, causal = hooked
    with WorldEngine(model, config()) as engine, engine.open("a cat", seed=1) as session:

        def before(name: str, number: int) -> None:
            if (name, number) == ("predict", 3):  # the second step of block 1
                session.steer("a dog", blocks=1)

        causal.before = before
        blocks = make(session, 4)
    assert [block.prompt for block in blocks] == ["a cat", "a cat", "a dog", "a cat"]
    assert all_equal(latents(blocks[:2]), latents(cats[:2]))


def test_an_action_that_does_not_exist_is_refused_and_the_session_goes_on(
    engine: WorldEngine, cats: list[Block]
) -> None:
    with engine.open("a cat", seed=1) as session:
        make(session, 1)
        with pytest.raises(RequestError, match="unknown action 'unknown jump'"):
            session.steer("unknown jump")
        assert torch.equal(session.next_block().latents, cats[1].latents)
    with pytest.raises(RequestError, match="unknown"):
        engine.open("unknown world")


@pytest.mark.parametrize(
    ("cache", "kept"),
    [
        (CacheConfig(window_blocks=8), [0, 1, 2, 3]),
        (CacheConfig(window_blocks=2), [2, 3]),
        (CacheConfig(policy="window+sink", window_blocks=2, sink_blocks=1), [0, 2, 3]),
        (CacheConfig(policy="full", max_blocks=8), [0, 1, 2, 3]),
    ],
    ids=["all", "window", "sink", "full"],
)
def test_recaching_is_a_fresh_session_with_the_new_prompt_over_the_same_past(
    world: WorldModel, cache: CacheConfig, kept: list[int]
) -> None:
    settings = config(cache=cache, on_prompt_change="recache")
    with WorldEngine(world, settings) as engine, engine.open("a cat", seed=1) as session:
        past = latents(make(session, 4))
        session.steer("a dog")
        block = session.next_block()
    prompt = world.prompts.encode("a dog")
    fresh = world.causal.new_cache(world.settings.block_shape, cache)
    with torch.inference_mode():
        for index in kept:
            world.causal.commit(past[index], prompt, fresh)
        expected = by_hand(world, fresh, prompt, seed=1, index=4)
    torch.testing.assert_close(block.latents, expected, rtol=0, atol=1e-5)


def test_only_a_lasting_prompt_rewrites_the_past_and_only_once(hooked: tuple[WorldModel, Hooked]) -> None:
    model, causal = hooked
    commits: list[int] = []
    causal.before = lambda name, number: commits.append(number) if name == "commit" else None
    with WorldEngine(model, config(on_prompt_change="recache")) as engine, engine.open("a cat") as session:
        make(session, 2)
        session.steer("a bird", blocks=1)
        make(session, 2)
        assert len(commits) <= 4  # the last one may not have begun
        session.steer("a dog")
        make(session, 1)  # four blocks are written anew
        session.steer("a bird", blocks=1)
        make(session, 3)
    assert len(commits) <= 4 + 4 + 4
    assert len(commits) >= 4 + 4 + 3


def test_keep_and_reset_cross_make_the_same_clip(world: WorldModel, engine: WorldEngine) -> None:
    def steered(opened: WorldEngine) -> list[torch.Tensor]:
        with opened.open("a cat", seed=1) as session:
            blocks = make(session, 2)
            session.steer("a dog", blocks=1)
            return latents(blocks + make(session, 2))

    with WorldEngine(world, config(on_prompt_change="keep")) as keeping:
        assert all_equal(steered(keeping), steered(engine))


def test_fresh_noise_is_the_seeds_too(world: WorldModel) -> None:
    settings = config(sampler=SamplerConfig(sigmas=(1.0, 0.75, 0.5), renoise=True))
    clips = []
    with WorldEngine(world, settings) as engine:
        for _ in range(2):
            with engine.open("a cat", seed=1) as session:
                clips.append(latents(make(session, 2)))
    assert all_equal(*clips)
