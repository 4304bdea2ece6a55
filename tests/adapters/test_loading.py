"""Tests the loader with stores that are slow, fail, or are slow and fail at random."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from loras import TINY_LAYERS, TinyModel, random_layers, write_lora
from patience import PATIENCE_S

from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.adapters.loading import AdapterLoader, Loaded, LoadHandle, RetryPolicy
from swiftdiff.adapters.lora_loading import LoraReader
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.residency import AdapterCache
from swiftdiff.adapters.store import AdapterStore, StoreUnavailableError
from swiftdiff.errors import AdapterError


class FakeReads:
    """A store of adapters that are their own ids in capitals, 10 bytes each; reads wait at a gate."""

    def __init__(self, before: Callable[[str], None] = lambda adapter_id: None) -> None:
        self.before = before
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.counts: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, adapter_id: str) -> Loaded[str]:
        with self._lock:
            self.counts[adapter_id] += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.begun.release()
        try:
            assert self.gate.wait(PATIENCE_S)
            self.before(adapter_id)
            return Loaded(adapter_id.upper(), 10, 7, 0.25, 0.5)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def reads() -> FakeReads:
    return FakeReads()


@pytest.fixture
def loader(reads: FakeReads) -> Iterator[AdapterLoader[str]]:
    with AdapterLoader(reads, AdapterCache(100), retry=RetryPolicy(3, 0.001)) as loader:
        yield loader
        reads.gate.set()


def test_a_load_begins_at_once_and_is_ready_later(reads: FakeReads, loader: AdapterLoader[str]) -> None:
    reads.gate.clear()
    handle = loader.load("neon")
    assert not handle.ready()
    assert not handle.wait(0.001)
    assert handle.timing is None
    with pytest.raises(TimeoutError):
        handle.result(0.001)
    reads.gate.set()
    assert handle.result(PATIENCE_S) == "NEON"
    assert handle.timing is not None
    assert (handle.timing.source, handle.timing.bytes_read, handle.timing.attempts) == ("store", 7, 1)
    assert (handle.timing.fetch_s, handle.timing.prepare_s) == (0.25, 0.5)


def test_an_adapter_wanted_twice_is_read_once(reads: FakeReads, loader: AdapterLoader[str]) -> None:
    reads.gate.clear()
    first, second = loader.load("neon"), loader.load("neon")
    reads.gate.set()
    assert first.result(PATIENCE_S) == second.result(PATIENCE_S)
    third = loader.load("neon")
    assert third.ready()
    assert reads.counts == {"neon": 1}
    timings = [handle.timing for handle in (first, second, third)]
    assert [(timing.source, timing.bytes_read) for timing in timings if timing] == [
        ("store", 7),
        ("shared", 0),
        ("cache", 0),
    ]


def test_reads_at_one_time_are_bounded() -> None:
    reads = FakeReads(lambda adapter_id: time.sleep(0.002))
    with AdapterLoader(reads, AdapterCache(None), max_concurrent=2) as loader:
        handles = [loader.load(str(number)) for number in range(10)]
        assert [handle.result(PATIENCE_S) for handle in handles] == [str(number) for number in range(10)]
    assert reads.most_running <= 2


def test_a_store_that_fails_is_asked_again_and_then_fails_this_adapter_only(
    reads: FakeReads, loader: AdapterLoader[str]
) -> None:
    def fail(adapter_id: str) -> None:
        if adapter_id == "gone" or (adapter_id == "shaky" and reads.counts["shaky"] < 3):
            raise StoreUnavailableError(f"no answer about {adapter_id}")

    reads.before = fail
    gone, shaky, fine = loader.load("gone"), loader.load("shaky"), loader.load("fine")
    assert fine.result(PATIENCE_S) == "FINE"
    assert shaky.result(PATIENCE_S) == "SHAKY"
    assert shaky.timing is not None
    assert shaky.timing.attempts == 3
    with pytest.raises(AdapterError, match="no answer about gone"):
        gone.result(PATIENCE_S)
    assert gone.timing is None
    assert reads.counts["gone"] == 3
    gone.release()


def test_a_damaged_adapter_is_not_asked_for_again_until_the_next_request(
    reads: FakeReads, loader: AdapterLoader[str]
) -> None:
    def fail(adapter_id: str) -> None:
        raise AdapterError("damaged")

    reads.before = fail
    with pytest.raises(AdapterError, match="damaged"):
        loader.load("x").result(PATIENCE_S)
    assert reads.counts["x"] == 1
    reads.before = lambda adapter_id: None
    assert loader.load("x").result(PATIENCE_S) == "X"


def test_a_released_load_wakes_its_waiter_and_leaves_the_others_alone(
    reads: FakeReads, loader: AdapterLoader[str]
) -> None:
    reads.gate.clear()
    mine, others = loader.load("neon"), loader.load("neon")
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(mine.result, PATIENCE_S)
        mine.release()
        with pytest.raises(CancelledError):
            waiter.result(PATIENCE_S)
    assert mine.wait()
    assert mine.timing is None
    reads.gate.set()
    assert others.result(PATIENCE_S) == "NEON"
    assert others.timing is not None
    assert others.timing.bytes_read == 7
    mine.release()


def test_a_load_that_nobody_waits_for_is_not_begun() -> None:
    reads = FakeReads()
    reads.gate.clear()
    with AdapterLoader(reads, AdapterCache(None), max_concurrent=1) as loader:
        running = loader.load("first")
        assert reads.begun.acquire(timeout=PATIENCE_S)
        queued = loader.load("second")
        queued.release()
        again = loader.load("second")
        again.release()
        reads.gate.set()
        running.result(PATIENCE_S)
    assert reads.counts == {"first": 1}


def test_an_abandoned_load_is_not_retried_but_one_that_is_wanted_again_is() -> None:
    failed = threading.Event()

    def fail(adapter_id: str) -> None:
        failed.set()
        raise StoreUnavailableError("down")

    reads = FakeReads(fail)
    with AdapterLoader(reads, AdapterCache(None), retry=RetryPolicy(5, 1000.0)) as loader:
        handle = loader.load("x")
        assert failed.wait(PATIENCE_S)
        handle.release()  # ends the pause of 1000 s
    assert reads.counts["x"] == 1


def test_adapters_in_use_stay_and_others_make_room(reads: FakeReads) -> None:
    with AdapterLoader(reads, AdapterCache(20)) as loader:
        held = loader.load("held")
        held.result(PATIENCE_S)
        for name in ("a", "b", "c"):
            with loader.load(name) as handle:
                handle.result(PATIENCE_S)
        reads.gate.clear()
        assert loader.load("held").ready()
        assert not loader.load("a").ready()
        assert loader.stats.hits == 1
        assert loader.stats.evictions == 2
        reads.gate.set()


def test_closing_wakes_everyone_and_refuses_new_loads(reads: FakeReads) -> None:
    loader = AdapterLoader(reads, AdapterCache(None), max_concurrent=1)
    reads.gate.clear()
    handles = [loader.load(name) for name in ("a", "a", "b")]
    assert reads.begun.acquire(timeout=PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(loader.close)
        for handle in handles:
            with pytest.raises(CancelledError):
                handle.result(PATIENCE_S)
        reads.gate.set()
        closing.result(PATIENCE_S)
    with pytest.raises(RuntimeError, match="closed"):
        loader.load("c")
    handles[0].release()
    loader.close()
    assert reads.counts == {"a": 1}
    assert not any(thread.name.startswith("swiftdiff-load") for thread in threading.enumerate())


ALLOWED = {name: {name.upper(), f"{name} is down"} for name in "abcd"}
ALLOWED["damaged"] = {"damaged is down", "damaged is damaged"}


def outcome_of(handle: LoadHandle[str]) -> str:
    try:
        return handle.result(PATIENCE_S)
    except AdapterError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(20))
def test_requests_that_race_get_the_right_adapters_or_their_own_failure(seed: int) -> None:
    chance = random.Random(seed)
    lock = threading.Lock()

    def misbehave(adapter_id: str) -> None:
        with lock:
            delay, fate = chance.choice((0, 0, 0.0005, 0.002)), chance.random()
        time.sleep(delay)
        if fate < 0.2:
            raise StoreUnavailableError(f"{adapter_id} is down")
        if adapter_id == "damaged":
            raise AdapterError(f"{adapter_id} is damaged")

    reads = FakeReads(misbehave)
    cache: AdapterCache[str] = AdapterCache(20, chance.choice(("lru", "lfu")))
    names = list(ALLOWED)

    def request(number: int) -> None:
        mine = random.Random(seed * 1000 + number)
        handles = [loader.load(mine.choice(names)) for _ in range(2)]
        time.sleep(mine.choice((0, 0, 0.001)))
        for handle in handles:
            if mine.random() < 0.7:
                assert handle.wait(PATIENCE_S)
                assert outcome_of(handle) in ALLOWED[handle.adapter_id]
            handle.release()
            if mine.random() < 0.2:
                handle.release()

    with AdapterLoader(reads, cache, max_concurrent=3, retry=RetryPolicy(2, 0.0005)) as loader:
        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(request, number) for number in range(24)]:
                done.result(PATIENCE_S)
        for name in "abcd":  # nothing is stuck: everything can still be had
            for _ in range(50):
                try:
                    with loader.load(name) as handle:
                        assert handle.result(PATIENCE_S) == name.upper()
                    break
                except StoreUnavailableError:
                    continue
            else:
                pytest.fail(f"{name} was not to be had")
        assert loader.stats.used_bytes <= 20  # nothing stayed pinned


def _store(folder: Path, model: TinyModel) -> AdapterStore:
    (folder / "loras").mkdir()
    write_lora(folder / "loras/good.safetensors", random_layers(model, TINY_LAYERS))
    damaged = random_layers(model, TINY_LAYERS)
    damaged["first"].down[0, 0] = torch.nan
    write_lora(folder / "loras/nan.safetensors", damaged)
    (folder / "loras/short.safetensors").write_bytes((folder / "loras/good.safetensors").read_bytes()[:-20])
    return AdapterStore(str(folder))


def test_loras_come_from_the_store_as_plans_and_damaged_ones_fail_with_their_reason(tmp_path: Path) -> None:
    model = TinyModel()
    store = _store(tmp_path, model)
    cache: AdapterCache[DeltaPlan] = AdapterCache(None)
    with AdapterLoader(LoraReader(store, ModelLayers.of({"unet": model})), cache) as loader:
        loads = {name: loader.load(name) for name in ("good", "nan", "short", "unknown", "../x")}
        plan = loads["good"].result(PATIENCE_S)
        assert plan.components == {"unet"}
        assert loader.stats.used_bytes == plan.num_bytes
        assert loads["good"].timing is not None
        assert loads["good"].timing.bytes_read == (tmp_path / "loras/good.safetensors").stat().st_size
        for name, message in (
            ("nan", r"unet\.first\.lora_A\.weight in nan\.safetensors holds NaN"),
            ("short", r"short\.safetensors is truncated"),
            ("unknown", r"unknown LoRA 'unknown'"),
            ("../x", "LoRA id is"),
        ):
            with pytest.raises(AdapterError, match=message):
                loads[name].result(PATIENCE_S)


def test_downloads_are_deleted_once_they_are_read(tmp_path: Path) -> None:
    import fsspec

    model = TinyModel()
    _store(tmp_path, model)
    fsspec.filesystem("memory").put(str(tmp_path / "loras"), "/lorabucket/loras", recursive=True)
    store = AdapterStore("memory://lorabucket")
    fetched = store.fetch_lora("good")
    downloads = fetched.path.parent
    with AdapterLoader(LoraReader(store, ModelLayers.of({"unet": model})), AdapterCache(None)) as loader:
        loader.load("good").result(PATIENCE_S)
    assert list(downloads.iterdir()) == []
    local = AdapterStore(str(tmp_path))
    local.discard(local.fetch_lora("good"))
    assert (tmp_path / "loras/good.safetensors").exists()
    store.close()
