"""Tests when arriving LoRAs are patched: at the next step boundary, and at step k at the latest."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from loras import TinyModel, is_identical, snapshot, tiny_plan

from swiftdiff.adapters.bal import ArrivingLoras, resolve_bound
from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.adapters.loading import AdapterLoader, Loaded, LoadHandle, LoadTiming
from swiftdiff.adapters.patcher import WeightPatcher
from swiftdiff.adapters.residency import AdapterCache
from swiftdiff.errors import AdapterError, ConfigError


@pytest.mark.parametrize(
    ("bound", "steps", "k"),
    [
        (0, 20, 0),
        (8, 20, 8),
        (20, 20, 19),
        (99, 20, 19),
        ("40%", 50, 20),
        ("40%", 20, 8),
        ("40 %", 4, 1),
        ("12.5%", 16, 2),
        ("0%", 20, 0),
        ("100%", 20, 19),
        ("29%", 100, 29),
        (5, 1, 0),
    ],
)
def test_the_bound_is_a_number_or_a_share_of_steps(bound: int | str, steps: int, k: int) -> None:
    assert resolve_bound(bound, steps) == k


@pytest.mark.parametrize("bound", [-1, True, "-1%", "101%", "auto", "40", "%", "four"])
def test_other_bounds_are_refused(bound: int | str) -> None:
    with pytest.raises(ConfigError, match='an integer from 0 or a share such as "40%"'):
        resolve_bound(bound, 20)


def handle(adapter_id: str) -> LoadHandle[DeltaPlan]:
    return LoadHandle(adapter_id, lambda released: released.abandon())


def arrive(load: LoadHandle[DeltaPlan], plan: DeltaPlan) -> None:
    load.settle((plan, LoadTiming("store", 1, 0.0)))


@pytest.fixture
def model() -> TinyModel:
    return TinyModel()


@pytest.fixture
def plans(model: TinyModel, tmp_path: Path) -> dict[str, DeltaPlan]:
    return {name: tiny_plan(tmp_path, model, name, seed=ord(name)) for name in "abc"}


def test_what_has_arrived_is_patched_at_the_next_boundary(
    model: TinyModel, plans: dict[str, DeltaPlan]
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    a, b = handle("a"), handle("b")
    loras = ArrivingLoras([(a, 0.5), (b, 1.0)], [patcher], bound=10)
    assert loras.patch_arrived(0).patched == ()
    assert is_identical(model, saved)
    arrive(b, plans["b"])
    boundary = loras.patch_arrived(1)
    assert [(lora.adapter_id, lora.scale, lora.step) for lora in boundary.patched] == [("b", 1.0, 1)]
    assert boundary.components == {"unet"}
    assert not loras.complete
    assert loras.patch_arrived(2).components == frozenset()
    arrive(a, plans["a"])
    assert [lora.step for lora in loras.patch_arrived(3).patched] == [3]
    assert loras.complete
    assert loras.patch_arrived(4) == loras.patch_arrived(10)
    assert [plan.adapter_id for plan, _ in patcher.applied] == ["b", "a"]


def test_step_k_waits_for_the_rest_and_then_patches_in_the_requests_order(
    model: TinyModel, plans: dict[str, DeltaPlan]
) -> None:
    patcher = WeightPatcher({"unet": model})
    loads = {name: handle(name) for name in "abc"}
    loras = ArrivingLoras([(load, 1.0) for load in loads.values()], [patcher], bound=2)
    loras.patch_arrived(0)
    loras.patch_arrived(1)

    def arrive_late() -> None:
        time.sleep(0.02)
        for name in "cab":
            arrive(loads[name], plans[name])

    thread = threading.Thread(target=arrive_late)
    thread.start()
    boundary = loras.patch_arrived(2)
    thread.join()
    assert loras.complete
    assert boundary.wait_s > 0
    assert [lora.adapter_id for lora in boundary.patched] == ["a", "b", "c"]
    assert {lora.step for lora in boundary.patched} == {2}


def test_a_bound_of_zero_is_synchronous(model: TinyModel, plans: dict[str, DeltaPlan]) -> None:
    load = handle("a")
    arrive(load, plans["a"])
    loras = ArrivingLoras([(load, 1.0)], [WeightPatcher({"unet": model})], bound=0)
    assert [lora.step for lora in loras.patch_arrived(0).patched] == [0]
    assert loras.complete


def test_the_first_boundary_takes_out_what_the_last_request_left_unless_it_is_the_same(
    model: TinyModel, plans: dict[str, DeltaPlan]
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    patcher.patch([(plans["a"], 1.0)])
    again = handle("a")
    arrive(again, plans["a"])
    assert ArrivingLoras([(again, 1.0)], [patcher], bound=3).patch_arrived(0).reports == ()
    without = ArrivingLoras([], [patcher], bound=0)
    boundary = without.patch_arrived(0)
    assert boundary.reports[0].restored_weights == 4
    assert without.complete
    assert is_identical(model, saved)


def test_a_load_that_fails_raises_at_the_boundary_and_the_next_request_is_served(
    model: TinyModel, plans: dict[str, DeltaPlan]
) -> None:
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    good, bad = handle("a"), handle("b")
    loras = ArrivingLoras([(good, 1.0), (bad, 1.0)], [patcher], bound=5)
    arrive(good, plans["a"])
    loras.patch_arrived(0)
    bad.settle(AdapterError("LoRA 'b' is damaged"))
    with pytest.raises(AdapterError, match="'b' is damaged"):
        loras.patch_arrived(1)
    loras.release()
    ArrivingLoras([], [patcher], bound=0).patch_arrived(0)
    assert is_identical(model, saved)


def test_a_released_request_stops_waiting(model: TinyModel) -> None:
    loras = ArrivingLoras([(handle("a"), 1.0)], [WeightPatcher({"unet": model})], bound=0)
    threading.Timer(0.02, loras.release).start()
    with pytest.raises(CancelledError):
        loras.patch_arrived(0)


@pytest.mark.parametrize("seed", range(12))
def test_weights_at_the_last_step_never_depend_on_delays_or_neighbours(
    model: TinyModel, plans: dict[str, DeltaPlan], seed: int
) -> None:
    chance = random.Random(seed)
    delays = random.Random(-seed - 1)

    def read(adapter_id: str) -> Loaded[DeltaPlan]:
        time.sleep(delays.choice((0, 0.0005, 0.002)))
        return Loaded(plans[adapter_id], plans[adapter_id].num_bytes, 1, 0.0, 0.0)

    alone = TinyModel()
    saved = snapshot(model)
    patcher = WeightPatcher({"unet": model})
    cache: AdapterCache[DeltaPlan] = AdapterCache(plans["a"].num_bytes)
    with AdapterLoader(read, cache, max_concurrent=2) as loader:
        queue = [
            [(name, chance.choice((0.5, 1.0))) for name in chance.sample("abc", chance.randint(0, 3))]
            for _ in range(8)
        ]
        arriving = [[(loader.load(name), scale) for name, scale in uses] for uses in queue]
        for uses, loads in zip(queue, arriving, strict=True):
            loras = ArrivingLoras(loads, [patcher], bound=chance.choice((0, 0, 2)))
            for step in range(4):
                loras.patch_arrived(step)
                time.sleep(delays.choice((0, 0.0005)))
            assert loras.complete
            order = [(plan, scale) for plan, scale in patcher.applied]
            assert sorted((plan.adapter_id, scale) for plan, scale in order) == sorted(uses)
            if loras.bound == 0:
                assert [(plan.adapter_id, scale) for plan, scale in order] == uses
            WeightPatcher({"unet": alone}).patch(order)
            assert is_identical(model, snapshot(alone))
            alone.load_state_dict(saved)
            loras.release()
        assert loader.stats.used_bytes <= plans["a"].num_bytes
    patcher.restore()
    assert is_identical(model, saved)
