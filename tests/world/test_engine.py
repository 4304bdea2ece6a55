from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from world_hooks import TWO_STEPS, Hooked, all_equal, config, latents, make, with_hooks, with_words

from swiftdiff.errors import ConfigError, RequestError
from swiftdiff.pipeline.lane import Lane
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.world.admission import BudgetError
from swiftdiff.world.config import CacheConfig, WorldConfig
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.sampling import block_noise, make_schedule
from swiftdiff.world.session import Block, SessionClosedError

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


def test_sessions_that_take_turns_make_the_clips_that_each_makes_alone(
    engine: WorldEngine, cats: list[Block]
) -> None:
    with engine.open("a dog", seed=2) as session:
        dogs = make(session, 5)
    with engine.open("a cat", seed=1) as first, engine.open("a dog", seed=2) as second:
        pairs = [(first.next_block(), second.next_block()) for _ in range(5)]
    assert all_equal([pair[0].latents for pair in pairs], latents(cats))
    assert all_equal([pair[1].latents for pair in pairs], latents(dogs))
    assert all(np.array_equal(pair[0].frames, cat.frames) for pair, cat in zip(pairs, cats, strict=True))


def test_sessions_in_threads_of_their_own_make_the_same_clips(engine: WorldEngine, cats: list[Block]) -> None:
    made: dict[int, list[torch.Tensor]] = {}

    def run(number: int) -> None:
        with engine.open("a cat", seed=1) as session:
            made[number] = latents(make(session, 5))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(made) == [0, 1, 2]
    assert all(all_equal(clip, latents(cats)) for clip in made.values())


def test_memory_is_taken_once_and_bounded(world: WorldModel) -> None:
    with WorldEngine(world, config(cache=CacheConfig(window_blocks=2))) as engine:
        with engine.open("a cat") as session:
            sizes = {session.cache_bytes for _ in make(session, 4)}
            assert sizes == {engine.session_bytes}
            assert engine.cache_bytes == engine.session_bytes > 0
        assert engine.cache_bytes == 0


def test_a_session_that_does_not_fit_is_refused_and_those_that_run_go_on(
    world: WorldModel, engine: WorldEngine, cats: list[Block]
) -> None:
    budget_mb = engine.session_bytes * 2.5 / 1e6
    with WorldEngine(world, config(memory_budget_mb=budget_mb)) as bounded:
        assert bounded.capacity == 2
        first, second = bounded.open("a cat", seed=1), bounded.open("a dog")
        first.next_block()
        with pytest.raises(BudgetError, match="memory_budget_mb"):
            bounded.open("a bird")
        assert torch.equal(first.next_block().latents, cats[1].latents)
        second.close()
        bounded.open("a bird").next_block()


def test_a_budget_that_fits_no_session_is_refused_at_once(world: WorldModel) -> None:
    with pytest.raises(ConfigError, match="memory_budget_mb is"):
        WorldEngine(world, config(memory_budget_mb=0.001))


def test_a_clip_under_the_policy_full_ends_at_its_last_block(world: WorldModel) -> None:
    with WorldEngine(world, config(cache=CacheConfig(policy="full", max_blocks=2))) as engine:
        session, other = engine.open("a cat"), engine.open("a dog")
        make(session, 2)
        with pytest.raises(RequestError, match="2 blocks, which is max_blocks"):
            session.next_block()
        assert other.next_block().index == 0


def test_closing_in_the_middle_of_a_block_ends_it_and_frees_its_memory(
    hooked: tuple[WorldModel, Hooked], cats: list[Block]
) -> None:
    model, causal = hooked
    in_a_step, may_go_on = threading.Event(), threading.Event()
    with WorldEngine(model, config()) as engine:
        session, other = engine.open("a cat"), engine.open("a cat", seed=1)
        make(other, 1)

        def before(name: str, number: int) -> None:
            if name == "predict" and not in_a_step.is_set():
                in_a_step.set()
                assert may_go_on.wait(WAIT_S)

        causal.before = before
        errors: list[BaseException] = []

        def run() -> None:
            try:
                session.next_block()
            except SessionClosedError as error:
                errors.append(error)

        maker = threading.Thread(target=run)
        maker.start()
        assert in_a_step.wait(WAIT_S)
        closer = threading.Thread(target=session.close)
        closer.start()
        while not session.is_closed:
            time.sleep(0.001)
        may_go_on.set()
        maker.join(WAIT_S)
        closer.join(WAIT_S)
        assert len(errors) == 1
        assert engine.sessions == (other,)
        assert torch.equal(other.next_block().latents, cats[1].latents)
        for late in (session.next_block, lambda: session.steer("a dog")):
            with pytest.raises(SessionClosedError, match="is closed"):
                late()
        session.close()  # more calls do nothing
        assert engine.cache_bytes == engine.session_bytes


@pytest.mark.parametrize("name", ["predict", "commit"])
def test_a_pass_that_fails_ends_its_session_alone(
    hooked: tuple[WorldModel, Hooked], cats: list[Block], name: str
) -> None:
    model, causal = hooked
    with WorldEngine(model, config()) as engine:
        session, other = engine.open("a cat"), engine.open("a cat", seed=1)
        make(other, 1)

        def fail(called: str, number: int) -> None:
            if called == name:
                raise ArithmeticError("out of luck")

        # Lanes do one thing after the other: when this block is there, what came before it is done.
        engine.open("a bird").next_block()
        causal.before = fail
        if name == "commit":
            session.next_block()  # there before the pass that fails
        with pytest.raises(ArithmeticError):
            session.next_block()
        causal.before = lambda name, number: None
        with pytest.raises(RequestError, match=r"failed in block .* out of luck"):
            session.next_block()
        session.close()
        assert torch.equal(other.next_block().latents, cats[1].latents)


def test_guidance_on_two_lanes_is_guidance_on_one(world: WorldModel) -> None:
    two = WorldConfig(guidance_scale=3.0, threads=2)
    one = WorldConfig(guidance_scale=3.0, threads=1, latent_parallelism=False)
    clips = []
    for settings in (two, one):
        with WorldEngine(world, settings) as engine, engine.open("a cat", seed=1) as session:
            assert engine.session_bytes == session.cache_bytes
            clips.append(latents(make(session, 3)))
    assert all_equal(*clips)


@pytest.mark.parametrize(
    ("threads", "is_small", "alone", "guided"),
    [(None, True, [1], [1, 1]), (None, False, [4], [2, 2]), (3, True, [3], [2, 1]), (1, False, [1], [1])],
)
def test_a_small_model_has_one_thread_a_lane_unless_told(
    *,
    threads: int | None,
    is_small: bool,
    alone: list[int],
    guided: list[int],
    world: WorldModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[int] = []

    class NotedLane(Lane):
        def __init__(self, device: str, threads: int, *, role: str) -> None:
            found.append(threads)
            super().__init__(device, 1, role=role)

    monkeypatch.setattr("swiftdiff.world.engine.Lane", NotedLane)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    if not is_small:
        monkeypatch.setattr("swiftdiff.world.engine._LEAST_SHARED", 0)
    for scale, expected in ((1.0, alone), (3.0, guided)):
        found.clear()
        with WorldEngine(world, WorldConfig(threads=threads, guidance_scale=scale)):
            assert found == expected


def test_guidance_leads_away_from_no_prompt(world: WorldModel) -> None:
    with WorldEngine(world, config(guidance_scale=3.0)) as engine, engine.open("a cat", seed=1) as session:
        guided = session.next_block().latents
    schedule = make_schedule(TWO_STEPS)
    caches = [world.causal.new_cache(world.settings.block_shape, CacheConfig()) for _ in range(2)]
    prompts = (world.prompts.encode("a cat"), world.prompts.null())
    noisy = block_noise(1, 0, 1, world.settings.block_shape)[0]
    with torch.inference_mode():
        for step, timestep in enumerate(schedule.timesteps):
            told, empty = (
                world.causal.predict(noisy, timestep, prompt, cache)
                for prompt, cache in zip(prompts, caches, strict=True)
            )
            noisy = schedule.step(noisy, empty + 3.0 * (told - empty), step)
    torch.testing.assert_close(guided, noisy, rtol=0, atol=1e-5)


def test_what_each_part_took_is_in_the_block_and_in_the_timeline(world: WorldModel) -> None:
    timeline = Timeline()
    with WorldEngine(world, config(), timeline=timeline) as engine, engine.open("a cat") as session:
        first, second = make(session, 2)
    assert first.times is not None
    assert second.times is not None
    assert len(first.times.steps_s) == 2
    assert first.times.commit_s == 0.0 < second.times.commit_s
    assert first.times.first_pixels_s >= sum(first.times.steps_s) + first.times.decode_s
    spans = list(timeline.drain())
    names = [span.name for span in spans]
    assert names.count("world_step") == 4
    assert names.count("world_decode") == 2
    assert names.count("world_commit") >= 1
    step = next(span for span in spans if span.name == "world_step")
    assert dict(step.details) == {"session": session.number, "block": 0, "step": 0}


def test_an_engine_that_does_not_profile_makes_the_same_clip(world: WorldModel, cats: list[Block]) -> None:
    with WorldEngine(world, config(), profile=False) as engine, engine.open("a cat", seed=1) as session:
        block = session.next_block()
    assert block.times is None
    assert torch.equal(block.latents, cats[0].latents)


def test_closing_the_engine_closes_its_sessions(world: WorldModel) -> None:
    engine = WorldEngine(world, config())
    session = engine.open("a cat")
    make(session, 1)
    engine.close()
    engine.close()
    with pytest.raises(SessionClosedError):
        session.next_block()
    with pytest.raises(ConfigError, match="closed"):
        engine.open("a cat")


def test_a_negative_seed_is_refused(engine: WorldEngine) -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        engine.open("a cat", seed=-1)
