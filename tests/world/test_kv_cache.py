"""The KV cache against keys and values in plain lists."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor

from swiftdiff.errors import ConfigError, RequestError
from swiftdiff.world.config import CacheConfig, CacheDtype, CachePolicy, CacheStorage
from swiftdiff.world.kv_cache import BlockKVCache, CacheShape
from swiftdiff.world.rotary import BlockTurns, rotate

CPU = torch.device("cpu")
SHAPE = CacheShape(num_layers=3, num_heads=2, head_dim=24, tokens_per_block=12, batch=2)
TURNS = BlockTurns(WanRotaryPosEmbed(24, (1, 1, 1), 64), (3, 2, 2), CPU)
DTYPES: tuple[CacheDtype, ...] = ("native", "int8")
STORAGES: tuple[CacheStorage, ...] = ("device", "host")
POLICIES: tuple[CachePolicy, ...] = ("full", "window", "window+sink")

Layers = list[tuple[Tensor, Tensor]]


def make_config(
    policy: CachePolicy, dtype: CacheDtype = "native", storage: CacheStorage = "device"
) -> CacheConfig:
    return CacheConfig(
        policy=policy, window_blocks=3, sink_blocks=2, max_blocks=9, dtype=dtype, storage=storage
    )


def make_cache(config: CacheConfig, dtype: torch.dtype = torch.float32) -> BlockKVCache:
    return BlockKVCache(SHAPE, config, CPU, dtype)


def make_block(number: int) -> Layers:
    generator = torch.Generator().manual_seed(number)
    size = (SHAPE.batch, SHAPE.num_heads, SHAPE.tokens_per_block, SHAPE.head_dim)
    return [
        (torch.randn(size, generator=generator), torch.randn(size, generator=generator))
        for _ in range(SHAPE.num_layers)
    ]


def run_pass(cache: BlockKVCache, block: Layers, *, keep: bool) -> Layers:
    """Place a block in every layer; return copies of what attention would read."""
    cache.begin(TURNS)
    seen = []
    for layer, (key, value) in enumerate(block):
        keys, values = cache.place(layer, key, value, keep=keep)
        seen.append((keys.clone(), values.clone()))
    if keep:
        cache.commit()
    return seen


def expect(past: list[Layers], block: Layers, layer: int) -> tuple[Tensor, Tensor]:
    """Return a layer's keys, rotated by their place in the list, and values, in the list's order."""
    blocks = [*past, block]
    keys = [rotate(blocks[i][layer][0], TURNS.at(i)) for i in range(len(blocks))]
    return torch.cat(keys, 2), torch.cat([each[layer][1] for each in blocks], 2)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, keys, values)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("policy", POLICIES)
def test_attention_reads_what_plain_lists_would_give(
    policy: CachePolicy, dtype: CacheDtype, storage: CacheStorage
) -> None:
    cache = make_cache(make_config(policy, dtype, storage))
    past: list[Layers] = []
    query = torch.randn(SHAPE.batch, SHAPE.num_heads, 5, SHAPE.head_dim)
    atol = 1e-6 if dtype == "native" else 0.03
    for number in range(9):
        for keep, block in ((False, make_block(100 + number)), (True, make_block(number))):
            for layer, (keys, values) in enumerate(run_pass(cache, block, keep=keep)):
                expected_keys, expected_values = expect(past, block, layer)
                assert keys.shape == expected_keys.shape
                actual = attend(query, keys, values)
                assert torch.allclose(actual, attend(query, expected_keys, expected_values), atol=atol)
        past.append(make_block(number))
        if policy != "full" and len(past) > (3 if policy == "window" else 5):
            del past[0 if policy == "window" else 2]
        assert cache.num_blocks == len(past)
    assert cache.num_committed == 9


def test_memory_is_allocated_once_and_is_what_was_said_before() -> None:
    for policy, dtype, storage in itertools.product(POLICIES, DTYPES, STORAGES):
        for native in (torch.float32, torch.bfloat16):
            config = make_config(policy, dtype, storage)
            cache = make_cache(config, native)
            assert cache.bytes == BlockKVCache.bytes_for(SHAPE, config, native)
            where = {tensor.data_ptr() for tensor in cache.read(0)}
            for number in range(8):
                block = [(key.to(native), value.to(native)) for key, value in make_block(number)]
                run_pass(cache, block, keep=True)
            assert {tensor.data_ptr() for tensor in cache.read(0)} == where
            assert cache.bytes == BlockKVCache.bytes_for(SHAPE, config, native)


def test_int8_takes_less_than_a_third_of_float32() -> None:
    shape = CacheShape(num_layers=6, num_heads=4, head_dim=32, tokens_per_block=48)
    for policy in POLICIES:
        native, packed = (
            BlockKVCache.bytes_for(shape, make_config(policy, dtype), torch.float32) for dtype in DTYPES
        )
        assert packed < 0.3 * native


def test_a_read_of_native_keys_on_the_device_copies_nothing() -> None:
    cache = make_cache(make_config("window"))
    for number in range(5):
        run_pass(cache, make_block(number), keep=True)
    cache.begin(TURNS)
    first, again = cache.read(1), cache.read(1)
    for one, other in zip(first, again, strict=True):
        assert one.data_ptr() == other.data_ptr()
        assert one._base is not None


@pytest.mark.parametrize(("dtype", "storage"), list(itertools.product(DTYPES, STORAGES)))
def test_passes_that_do_not_commit_leave_the_past_as_it_was(dtype: CacheDtype, storage: CacheStorage) -> None:
    cache = make_cache(make_config("window", dtype, storage))
    for number in range(5):
        run_pass(cache, make_block(number), keep=True)
    before = run_pass(cache, make_block(50), keep=False)
    run_pass(cache, make_block(51), keep=False)
    cache.begin(TURNS)
    cache.place(0, *make_block(52)[0], keep=True)  # a commit pass that fails after one layer
    with pytest.raises(RuntimeError, match="1 of 3 layers"):
        cache.commit()
    assert cache.num_committed == 5
    for (keys, values), (old_keys, old_values) in zip(
        run_pass(cache, make_block(50), keep=False), before, strict=True
    ):
        assert torch.equal(keys, old_keys)
        assert torch.equal(values, old_values)


@pytest.mark.parametrize(("dtype", "storage"), list(itertools.product(DTYPES, STORAGES)))
def test_evicting_by_hand_forgets_the_oldest_and_moves_the_rest_up(
    dtype: CacheDtype, storage: CacheStorage
) -> None:
    cache = make_cache(make_config("window+sink", dtype, storage))
    for number in range(7):  # kept then: 0, 1, 4, 5, 6
        run_pass(cache, make_block(number), keep=True)
    cache.evict()
    cache.evict()
    query = torch.randn(SHAPE.batch, SHAPE.num_heads, 5, SHAPE.head_dim)
    past = [make_block(number) for number in (0, 1, 6)]
    seen = run_pass(cache, make_block(7), keep=False)
    for layer, (keys, values) in enumerate(seen):
        expected = attend(query, *expect(past, make_block(7), layer))
        assert torch.allclose(attend(query, keys, values), expected, atol=1e-6 if dtype == "native" else 0.03)
    cache.evict()
    with pytest.raises(RequestError, match="no block can be evicted"):
        cache.evict()


def test_a_cleared_cache_is_like_new() -> None:
    cache, fresh = make_cache(make_config("window")), make_cache(make_config("window"))
    for number in range(5):
        run_pass(cache, make_block(number), keep=True)
    cache.clear()
    assert (cache.num_blocks, cache.num_committed) == (0, 0)
    for number in range(10, 15):
        for (keys, values), (fresh_keys, fresh_values) in zip(
            run_pass(cache, make_block(number), keep=True),
            run_pass(fresh, make_block(number), keep=True),
            strict=True,
        ):
            assert torch.equal(keys, fresh_keys)
            assert torch.equal(values, fresh_values)


def test_a_cache_made_in_inference_mode_serves_outside_it_and_the_other_way_round() -> None:
    with torch.inference_mode():
        cache = make_cache(make_config("window"))
    run_pass(cache, make_block(0), keep=True)
    with torch.inference_mode():
        run_pass(cache, make_block(1), keep=True)
    run_pass(cache, make_block(2), keep=True)
    assert cache.num_blocks == 3


def test_more_memory_than_there_is_is_one_clear_error() -> None:
    shape = CacheShape(num_layers=1, num_heads=1, head_dim=1 << 20, tokens_per_block=1 << 30)
    with pytest.raises(ConfigError, match=r"MB cannot be allocated on cpu.*window_blocks"):
        BlockKVCache(shape, make_config("window"), CPU, torch.float32)


def test_a_shape_without_tokens_is_an_error() -> None:
    with pytest.raises(ConfigError, match="tokens_per_block is 0"):
        CacheShape(num_layers=1, num_heads=1, head_dim=8, tokens_per_block=0)
