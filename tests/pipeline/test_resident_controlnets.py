"""Tests both levels of ControlNets' residency. A device of type ``meta`` plays the GPU, in this memory."""

from __future__ import annotations

import copy
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import ControlNetModel
from families import build_controlnet, build_unet
from patience import PATIENCE_S, until

from swiftdiff.adapters.loading import Loaded, LoadHandle, RetryPolicy
from swiftdiff.adapters.store import StoreUnavailableError
from swiftdiff.errors import AdapterError
from swiftdiff.pipeline.graphs import TracedGraphs
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.networks import ServedControlNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.resident_controlnets import ResidentControlNets, copy_to_device

CPU, GPU = torch.device("cpu"), torch.device("meta")
OTHER_GPU = torch.device("meta", 1)
STORED_BYTES = 7
SEEDS = {"edges": 1, "depth": 2, "layout": 3}
Handle = LoadHandle[Replicas[ServedControlNet]]


class Store:
    """Reads wait at a gate; what is to fail, fails first."""

    def __init__(self) -> None:
        self.unet = build_unet()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.reads: Counter[str] = Counter()
        self.copies: Counter[tuple[str, torch.device]] = Counter()
        self.failures: list[Exception] = []

    def read(self, adapter_id: str) -> Loaded[ControlNetModel]:
        self.reads[adapter_id] += 1
        self.begun.release()
        assert self.gate.wait(PATIENCE_S)
        if self.failures:
            raise self.failures.pop()
        controlnet = build_controlnet(self.unet, SEEDS[adapter_id]).requires_grad_(False)
        controlnet.adapter_id = adapter_id
        return Loaded(controlnet, num_bytes(controlnet), STORED_BYTES, 0.25, 0.5)

    def copy_to(self, controlnet: ControlNetModel, device: torch.device) -> ControlNetModel:
        self.copies[controlnet.adapter_id, device] += 1
        return copy.deepcopy(controlnet)


Make = Callable[..., ResidentControlNets]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def make(store: Store) -> Iterator[Make]:
    made: list[ResidentControlNets] = []

    def make(*devices: torch.device, **changes: Any) -> ResidentControlNets:
        options: dict[str, Any] = {"host_budget_bytes": None, "device_budget_bytes": None}
        options |= {"retry": RetryPolicy(3, 0.001), "copy_to": store.copy_to} | changes
        made.append(ResidentControlNets(store.read, devices, lambda device: "eager", **options))
        return made[-1]

    yield make
    store.gate.set()
    for resident in made:
        resident.close()


def num_bytes(controlnet: ControlNetModel) -> int:
    return sum(tensor.nbytes for tensor in controlnet.state_dict().values())


def network(handle: Handle, device: torch.device) -> ServedControlNet:
    lane = cast(Lane, SimpleNamespace(device=device, name=str(device)))
    return handle.result(PATIENCE_S).on(lane)


def account(handle: Handle) -> tuple[str, int, int]:
    assert handle.wait(PATIENCE_S)
    timing = handle.timing
    assert timing is not None
    return timing.source, timing.bytes_read, timing.attempts


def test_cpu_lanes_use_the_copy_of_the_host(make: Make, store: Store) -> None:
    resident = make(CPU, CPU)
    first, second = resident.load("edges"), resident.load("edges")
    assert network(first, CPU) is network(second, CPU)
    assert (store.reads["edges"], store.copies.total()) == (1, 0)
    assert resident.stats.devices == {}
    assert resident.stats.host.used_bytes == num_bytes(network(first, CPU).controlnet)


def test_each_gpu_has_a_copy_that_all_requests_share(make: Make, store: Store) -> None:
    resident = make(GPU, OTHER_GPU, CPU)
    first, second = resident.load("edges"), resident.load("edges")
    nets = {network(handle, device) for handle in (first, second) for device in (GPU, OTHER_GPU, CPU)}
    assert len(nets) == 3
    assert store.copies == {("edges", GPU): 1, ("edges", OTHER_GPU): 1}
    weights = [net.controlnet.conv_in.weight for net in nets]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    size = num_bytes(network(first, GPU).controlnet)
    assert resident.stats.devices[GPU].used_bytes == resident.stats.devices[OTHER_GPU].used_bytes == size


@pytest.mark.parametrize("devices", [(CPU,), (GPU,), (GPU, OTHER_GPU), (GPU, CPU)])
def test_the_store_is_read_and_counted_once(
    make: Make, store: Store, devices: tuple[torch.device, ...]
) -> None:
    resident = make(*devices)
    store.gate.clear()
    first, second = resident.load("edges"), resident.load("edges")
    assert store.begun.acquire(timeout=PATIENCE_S)
    assert not first.ready()
    assert first.timing is None
    assert not first.wait(0.001)
    with pytest.raises(TimeoutError):
        first.result(0.001)
    store.gate.set()
    assert account(first) == ("store", STORED_BYTES, 1)
    assert account(second) == ("shared", 0, 1)
    assert account(resident.load("edges")) == ("cache", 0, 0)
    assert store.reads["edges"] == 1


def test_a_copy_from_host_to_gpu_counts_as_cache(make: Make, store: Store) -> None:
    resident = make(GPU, device_budget_bytes=0)
    first = resident.load("edges")
    assert account(first) == ("store", STORED_BYTES, 1)
    first.release()
    assert account(resident.load("edges")) == ("cache", 0, 0)
    assert (store.reads["edges"], store.copies["edges", GPU]) == (1, 2)
    stats = resident.stats
    assert (stats.host.hits, stats.host.misses, stats.host.evictions) == (1, 1, 0)
    assert (stats.devices[GPU].hits, stats.devices[GPU].misses, stats.devices[GPU].evictions) == (0, 2, 1)


def test_what_a_gpu_has_need_not_stay_on_the_host(make: Make, store: Store) -> None:
    resident = make(GPU, host_budget_bytes=0)
    network(resident.load("edges"), GPU)
    assert resident.stats.host.used_bytes == 0
    assert account(resident.load("edges")) == ("cache", 0, 0)
    assert store.reads["edges"] == 1


@pytest.mark.parametrize("device", [CPU, GPU])
def test_an_evicted_controlnet_leaves_memory_once_it_is_released(make: Make, device: torch.device) -> None:
    resident = make(device, host_budget_bytes=0, device_budget_bytes=0)
    handle = resident.load("edges")
    weight = weakref.ref(network(handle, device).controlnet.conv_in.weight)
    assert weight() is not None
    handle.release()
    del handle
    until(lambda: weight() is None)  # the thread that loaded it may take its time to forget it


@pytest.mark.parametrize(("policy", "stays"), [("lru", "depth"), ("lfu", "edges")])
def test_the_policy_decides_which_leaves_a_gpu(make: Make, store: Store, policy: str, stays: str) -> None:
    size = num_bytes(build_controlnet(store.unet, 0))
    resident = make(GPU, device_budget_bytes=2 * size, policy=policy)
    for adapter_id in ("edges", "edges", "depth", "layout"):
        with resident.load(adapter_id) as handle:
            network(handle, GPU)
    copies = store.copies.total()
    with resident.load(stays) as handle:
        network(handle, GPU)
    assert store.copies.total() == copies
    assert store.reads.total() == 3


def test_a_store_that_does_not_answer_is_asked_as_often_as_the_policy_says(make: Make, store: Store) -> None:
    resident = make(GPU)
    store.failures = [StoreUnavailableError("down") for _ in range(2)]
    assert account(resident.load("edges")) == ("store", STORED_BYTES, 3)
    store.failures = [StoreUnavailableError("down") for _ in range(9)]
    with pytest.raises(AdapterError, match="down"):
        resident.load("depth").result(PATIENCE_S)
    assert store.reads["depth"] == 3


def test_a_bad_controlnet_fails_those_who_wait_for_it_and_can_be_asked_for_again(
    make: Make, store: Store
) -> None:
    resident = make(GPU, OTHER_GPU, CPU)
    store.failures = [AdapterError("damaged")]
    store.gate.clear()
    bad = resident.load("edges")
    assert store.begun.acquire(timeout=PATIENCE_S)
    store.gate.set()
    with pytest.raises(AdapterError, match="damaged"):
        bad.result(PATIENCE_S)
    assert bad.wait(PATIENCE_S)  # for every device: one that still waits would hand its failure on
    bad.release()
    assert network(resident.load("edges"), GPU).controlnet.adapter_id == "edges"


def test_closing_wakes_who_waits(make: Make, store: Store) -> None:
    resident = make(GPU)
    store.gate.clear()
    handle = resident.load("edges")
    assert store.begun.acquire(timeout=PATIENCE_S)
    closing = threading.Thread(target=resident.close)
    closing.start()
    with pytest.raises(CancelledError):
        handle.result(PATIENCE_S)
    store.gate.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        resident.load("edges")


def test_controlnets_on_the_cpu_share_traced_graphs(store: Store) -> None:
    traces = TracedGraphs()
    resident = ResidentControlNets(
        store.read,
        [CPU],
        lambda device: "traced",
        host_budget_bytes=None,
        device_budget_bytes=None,
        traces=traces,
    )
    arguments = torch.randn(1, 4, 8, 8), torch.randn(1, 64), torch.randn(1, 16, 8, 8), torch.randn(1, 24, 32)
    outputs = []
    for adapter_id in SEEDS:
        with resident.load(adapter_id) as handle, torch.inference_mode():
            outputs.append(network(handle, CPU).compute(*arguments)[0])
    resident.close()
    assert len(traces) == 1
    assert not torch.equal(outputs[0], outputs[1])


def test_a_copy_to_a_device_leaves_the_source_alone(store: Store) -> None:
    source = store.read("edges").value
    before = {key: value.clone() for key, value in source.state_dict().items()}
    moved = copy_to_device(source, torch.device("meta"))
    assert {weight.device for weight in moved.state_dict().values()} == {torch.device("meta")}
    assert [name for name, _ in moved.named_parameters()] == [name for name, _ in source.named_parameters()]
    assert dict(moved.config) == dict(source.config)
    assert not any(weight.requires_grad for weight in moved.parameters())
    for key, value in source.state_dict().items():
        assert torch.equal(value, before[key])
