"""Blocks through the transformer: against stock, against full recomputation, and by two threads at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny_world import build_tiny_transformer
from torch import Tensor

from swiftdiff.errors import ConfigError, ModelError, RequestError
from swiftdiff.world.attention import BlockSelfAttention
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kv_cache import BlockKVCache
from swiftdiff.world.loading import WorldModel

BLOCK = (1, 4, 3, 8, 8)
TIMESTEP = 833.25
FULL = CacheConfig(policy="full", max_blocks=16)
WINDOW = CacheConfig(policy="window", window_blocks=2)
SINK = CacheConfig(policy="window+sink", window_blocks=2, sink_blocks=2)
ROUNDED = 1e-5  # sums of some hundred float32 products in another order, through a few layers
POLICIES = pytest.mark.parametrize("config", [FULL, WINDOW, SINK], ids=lambda config: config.policy)


@pytest.fixture(scope="module")
def causal(tiny_world: Callable[[int], WorldModel]) -> CausalWan:
    return tiny_world(0).causal


def noise(seed: int, blocks: int = 1, batch: int = 1) -> Tensor:
    shape = (batch, 4, 3 * blocks, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_prompt(seed: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, 32, generator=torch.Generator().manual_seed(1000 + seed))


def make_cache(causal: CausalWan, config: CacheConfig, batch: int = 1) -> BlockKVCache:
    return causal.new_cache((batch, *BLOCK[1:]), config)


def roll(causal: CausalWan, cache: BlockKVCache, blocks: int, cross: bool = True) -> list[Tensor]:
    """Predict and commit blocks, each with a prompt of its own; return the predictions."""
    flows = []
    for number in range(blocks):
        prompt, kept = make_prompt(number), CrossCache() if cross else None
        flows.append(causal.predict(noise(100 + number), TIMESTEP, prompt, cache, kept))
        causal.commit(noise(number), prompt, cache, kept)
    return flows


def change(transformer: WanTransformer3DModel, **changes: int) -> WanTransformer3DModel:
    """Return a transformer of another config, with the same weights."""
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    changed = WanTransformer3DModel(**{**config, **changes})
    changed.load_state_dict(transformer.state_dict(), strict=False)
    return changed.eval().requires_grad_(False)


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max())


def test_a_block_without_a_past_is_what_the_stock_transformer_computes(causal: CausalWan) -> None:
    stock = build_tiny_transformer(0)
    latents, prompt = noise(0, batch=2), make_prompt(0, batch=2)
    with torch.no_grad():
        expected = stock(latents, torch.full((2,), TIMESTEP), prompt, return_dict=False)[0]
    for cross in (None, CrossCache()):
        actual = causal.predict(latents, TIMESTEP, prompt, make_cache(causal, FULL, batch=2), cross)
        assert torch.equal(actual, expected)


def test_a_stock_pipeline_can_go_on_to_use_the_same_transformer(causal: CausalWan) -> None:
    latents, prompt, time = noise(0, blocks=2), make_prompt(0), torch.tensor([500.0])
    with torch.no_grad():
        expected = build_tiny_transformer(0)(latents, time, prompt, return_dict=False)[0]
        assert torch.equal(causal.transformer(latents, time, prompt, return_dict=False)[0], expected)


def test_the_cache_equals_full_recomputation_over_14_blocks(causal: CausalWan) -> None:
    flows = roll(causal, make_cache(causal, FULL), 14)
    prompts = torch.stack([make_prompt(number) for number in range(14)], dim=1)
    past = torch.cat([noise(number) for number in range(14)], dim=2)
    for number in range(14):
        expected = causal.recompute(
            past[:, :, : 3 * number], noise(100 + number), TIMESTEP, prompts[:, : number + 1]
        )
        assert error(flows[number], expected) < 1e-5
    alone = causal.predict(noise(113), TIMESTEP, make_prompt(13), make_cache(causal, FULL))
    assert error(flows[13], alone) > 1e-2, "the past makes no difference: the test could not fail"


@POLICIES
def test_window_and_sinks_equal_recomputation_by_their_rules(causal: CausalWan, config: CacheConfig) -> None:
    flows = roll(causal, make_cache(causal, config), 9)
    prompts = torch.stack([make_prompt(number) for number in range(9)], dim=1)
    past = torch.cat([noise(number) for number in range(9)], dim=2)
    for number in range(9):
        given = (past[:, :, : 3 * number], noise(100 + number), TIMESTEP, prompts[:, : number + 1])
        assert error(flows[number], causal.recompute(*given, config)) < 1e-5
    if config.policy != "full":
        assert error(flows[8], causal.recompute(*given)) > 1e-3, "all of the past was seen"


def test_host_storage_changes_nothing_and_int8_little(causal: CausalWan) -> None:
    exact = roll(causal, make_cache(causal, SINK), 8)
    on_host = roll(causal, make_cache(causal, SINK.model_copy(update={"storage": "host"})), 8)
    assert all(torch.equal(one, other) for one, other in zip(exact, on_host, strict=True))
    for storage in ("device", "host"):
        packed = SINK.model_copy(update={"dtype": "int8", "storage": storage})
        errors = [
            error(one, other)
            for one, other in zip(exact, roll(causal, make_cache(causal, packed), 8), strict=True)
        ]
        assert errors[0] == 0, "a block without a past reads nothing that was packed"
        assert 0 < max(errors) < 0.02


def test_a_prompts_keys_and_values_are_made_once(causal: CausalWan) -> None:
    with_cross, without = (roll(causal, make_cache(causal, WINDOW), 4, cross) for cross in (True, False))
    assert all(torch.equal(one, other) for one, other in zip(with_cross, without, strict=True))
    cross, cache = CrossCache(), make_cache(causal, WINDOW)
    assert not cross.is_filled
    first = causal.predict(noise(0), TIMESTEP, make_prompt(0), cache, cross)
    assert cross.bytes == 2 * 2 * 4 * 64 * 4
    again = causal.predict(noise(0), TIMESTEP, make_prompt(1), cache, cross)  # its keys are not looked at
    assert torch.equal(first, again)


def test_one_prompt_serves_a_batch(causal: CausalWan) -> None:
    both = causal.predict(noise(0, batch=2), TIMESTEP, make_prompt(0), make_cache(causal, FULL, batch=2))
    for row in range(2):
        alone = causal.predict(
            noise(0, batch=2)[row : row + 1], TIMESTEP, make_prompt(0), make_cache(causal, FULL)
        )
        assert error(both[row : row + 1], alone) < 1e-5


@POLICIES
def test_teacher_forcing_is_what_the_engine_does_block_by_block(
    causal: CausalWan, config: CacheConfig
) -> None:
    blocks = 7
    clean = torch.cat([noise(number) for number in range(blocks)], dim=2)
    noisy = torch.cat([noise(100 + number) for number in range(blocks)], dim=2)
    times = torch.tensor([[1000.0, 937.5, 833.25, 625.0, 100.0, 0.0, 500.0]])
    prompts = torch.stack([make_prompt(number) for number in range(blocks)], dim=1)
    with torch.no_grad():
        together = causal.teacher_forced(clean, noisy, times, prompts, config)
    cache = make_cache(causal, config)
    for number in range(blocks):
        prompt, rows = make_prompt(number), slice(3 * number, 3 * number + 3)
        expected = causal.predict(noise(100 + number), float(times[0, number]), prompt, cache)
        assert error(together[:, :, rows], expected) < 1e-5
        causal.commit(noise(number), prompt, cache)


def test_teacher_forcing_lets_gradients_flow_only_from_the_past_and_the_block_itself() -> None:
    causal = CausalWan(build_tiny_transformer(0).requires_grad_(True).train())
    clean, noisy = noise(0, 4).requires_grad_(True), noise(1, 4).requires_grad_(True)
    prompts = torch.stack([make_prompt(number) for number in range(4)], dim=1).requires_grad_(True)
    flow = causal.teacher_forced(clean, noisy, torch.full((1, 4), 500.0), prompts)
    flow[:, :, 6:9].square().sum().backward()

    def touched(gradient: Tensor | None) -> list[bool]:
        assert gradient is not None
        return [bool(gradient[:, :, 3 * block : 3 * block + 3].any()) for block in range(4)]

    assert touched(clean.grad) == [True, True, False, False]
    assert touched(noisy.grad) == [False, False, True, False]
    assert prompts.grad is not None
    assert [bool(prompts.grad[:, block].any()) for block in range(4)] == [True, True, True, False]
    missing = [name for name, weight in causal.transformer.named_parameters() if weight.grad is None]
    assert missing == []


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        causal = CausalWan(build_tiny_transformer(0).requires_grad_(True).train())
        if checkpointing:
            causal.transformer.enable_gradient_checkpointing()
        prompts = make_prompt(0).expand(3, -1, -1).unsqueeze(0)
        flow = causal.teacher_forced(noise(0, 3), noise(1, 3), torch.full((1, 3), 500.0), prompts, WINDOW)
        flow.square().mean().backward()
        gradients.append([weight.grad for weight in causal.transformer.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert torch.allclose(one, other, atol=1e-7)


def test_two_threads_with_their_own_pasts_get_what_each_gets_alone(causal: CausalWan) -> None:
    configs = (WINDOW, SINK.model_copy(update={"dtype": "int8"}))
    alone = [roll(causal, make_cache(causal, config), 8) for config in configs]
    together: list[list[Tensor]] = [[], []]
    start = threading.Barrier(2)

    def run(index: int) -> None:
        start.wait()
        with torch.inference_mode():
            together[index] = roll(causal, make_cache(causal, configs[index]), 8)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, actual in zip(alone, together, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


@pytest.fixture(scope="module")
def fast(causal: CausalWan) -> CausalWan:
    return CausalWan(causal.transformer, fast=True)


@pytest.fixture(scope="module")
def untraced(fast: CausalWan) -> CausalWan:
    """The same kernels without graphs."""
    return fast.with_kernels_of_cached_passes()


@POLICIES
def test_traced_passes_compute_the_same_bits(
    fast: CausalWan, untraced: CausalWan, config: CacheConfig
) -> None:
    for size in (9, 3):  # the second clip's cache is another one's memory
        expected = roll(untraced, make_cache(untraced, config), size)
        actual = roll(fast, make_cache(fast, config), size)
        assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


@pytest.mark.parametrize("storage", ["device", "host"])
@pytest.mark.parametrize("cross", [True, False])
def test_fast_passes_are_stocks_up_to_rounding(
    causal: CausalWan, fast: CausalWan, storage: Literal["device", "host"], cross: bool
) -> None:
    config = WINDOW.model_copy(update={"storage": storage})
    expected = roll(causal, make_cache(causal, config), 9, cross)
    actual = roll(fast, make_cache(fast, config), 9, cross)
    worst = max(error(one, other) for one, other in zip(actual, expected, strict=True))
    assert 0 < worst < ROUNDED  # 0 would mean that stock's kernels ran


def test_recomputing_runs_stocks_kernels_unless_asked(
    causal: CausalWan, fast: CausalWan, untraced: CausalWan
) -> None:
    given = (noise(1, blocks=2), noise(2), TIMESTEP, make_prompt(0))
    stock = causal.recompute(*given)
    assert torch.equal(fast.recompute(*given), stock)
    assert 0 < error(untraced.recompute(*given), stock) < ROUNDED
    assert causal.with_kernels_of_cached_passes() is causal


def test_traced_passes_embed_each_timestep_once(causal: CausalWan, untraced: CausalWan) -> None:
    expected = roll(untraced, make_cache(untraced, WINDOW), 4)
    embedded = []
    embedder = causal.transformer.condition_embedder.time_embedder
    hook = embedder.register_forward_hook(lambda *_: embedded.append(1))
    traced = CausalWan(causal.transformer, fast=True)  # its twin of the transformer keeps the hook
    hook.remove()
    actual = roll(traced, make_cache(traced, WINDOW), 4)
    assert len(embedded) == 2, "one for each step of a block, one for the commit pass"
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


def test_the_weights_of_a_transformer_that_takes_part_keep_their_names(causal: CausalWan) -> None:
    assert list(causal.transformer.state_dict()) == list(build_tiny_transformer(0).state_dict())


def test_traced_passes_that_do_not_commit_leave_the_past_as_it_was(fast: CausalWan) -> None:
    cache = make_cache(fast, WINDOW)
    roll(fast, cache, 4)
    given = (TIMESTEP, make_prompt(0), cache, CrossCache())
    before = fast.predict(noise(9), *given)
    fast.predict(noise(10), *given)
    assert torch.equal(fast.predict(noise(9), *given), before)


def test_two_threads_may_trace_and_run_at_once(causal: CausalWan, untraced: CausalWan) -> None:
    traced = CausalWan(causal.transformer, fast=True)
    expected = roll(untraced, make_cache(untraced, WINDOW), 6)
    together: list[list[Tensor]] = [[], []]
    start = threading.Barrier(2)

    def run(index: int) -> None:
        start.wait()
        with torch.inference_mode():
            together[index] = roll(traced, make_cache(traced, WINDOW), 6)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together.append(roll(traced, make_cache(traced, WINDOW), 6))  # traced in inference mode, run outside it
    for actual in together:
        assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


def test_recaching_gives_the_past_that_the_new_prompt_would_have_made(causal: CausalWan) -> None:
    old, new = make_cache(causal, WINDOW), make_cache(causal, WINDOW)
    roll(causal, old, 5)
    blocks = [noise(number) for number in (3, 4)]
    causal.recache(blocks, make_prompt(50), old)
    for block in blocks:
        causal.commit(block, make_prompt(50), new)
    assert old.num_blocks == 2
    given = (noise(9), TIMESTEP, make_prompt(50))
    assert torch.equal(causal.predict(*given, old), causal.predict(*given, new))


def test_a_commit_that_fails_leaves_the_past_as_it_was(
    causal: CausalWan, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(causal, WINDOW)
    roll(causal, cache, 4)
    given = (noise(9), TIMESTEP, make_prompt(0), cache)
    before = causal.predict(*given)

    def fail(*_: object, **__: object) -> Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(causal.transformer.blocks[1].ffn, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            causal.commit(noise(4), make_prompt(4), cache)
    assert cache.num_committed == 4
    assert torch.equal(causal.predict(*given), before)


def test_a_window_outlives_the_models_table_of_positions_in_constant_memory() -> None:
    causal = CausalWan(change(build_tiny_transformer(0), rope_max_seq_len=12))
    cache = make_cache(causal, CacheConfig(policy="window", window_blocks=3))
    size = cache.bytes
    flows = roll(causal, cache, 12)  # 36 frames
    assert all(bool(flow.isfinite().all()) for flow in flows)
    assert cache.bytes == size
    with pytest.raises(ConfigError, match=r"block 4 .* 12 positions"):
        make_cache(causal, CacheConfig(policy="window", window_blocks=4))


def test_a_full_clip_refuses_one_block_more_before_computing_it(causal: CausalWan) -> None:
    cache = make_cache(causal, CacheConfig(policy="full", max_blocks=2))
    roll(causal, cache, 2)
    with pytest.raises(RequestError, match="max_blocks"):
        causal.predict(noise(2), TIMESTEP, make_prompt(2), cache)
    with pytest.raises(RequestError, match="max_blocks"):
        causal.commit(noise(2), make_prompt(2), cache)


def test_bfloat16_stays_near_float32(causal: CausalWan) -> None:
    half = CausalWan(build_tiny_transformer(0).to(torch.bfloat16))
    expected = roll(causal, make_cache(causal, SINK), 6)
    for storage in ("device", "host"):
        cache = make_cache(half, SINK.model_copy(update={"storage": storage}))
        for one, other in zip(roll(half, cache, 6), expected, strict=True):
            assert one.dtype == torch.bfloat16
            assert error(one.float(), other) < 0.1


def test_latents_of_another_size_than_the_cache_are_refused(causal: CausalWan) -> None:
    with pytest.raises(ValueError, match="tokens_per_block=48"):
        causal.predict(noise(0, blocks=2), TIMESTEP, make_prompt(0), make_cache(causal, WINDOW))


def test_a_deep_copy_is_a_model_of_its_own(causal: CausalWan) -> None:
    twin = CausalWan(copy.deepcopy(causal.transformer))
    assert isinstance(twin.transformer.blocks[0].attn1.processor, BlockSelfAttention)
    cache, other = make_cache(causal, WINDOW), make_cache(twin, WINDOW)
    assert torch.equal(roll(causal, cache, 3)[2], roll(twin, other, 3)[2])


def test_a_transformer_for_image_prompts_is_refused() -> None:
    transformer = change(build_tiny_transformer(0), image_dim=8, added_kv_proj_dim=64)
    with pytest.raises(ModelError, match="text-to-video"):
        CausalWan(transformer)
