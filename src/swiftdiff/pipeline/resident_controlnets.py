"""Decides which ControlNets are in memory, on the host and on each GPU, and brings them there."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from diffusers import ControlNetModel
from torch import nn

from swiftdiff.adapters.loading import AdapterLoader, Loaded, LoadHandle, LoadTiming, RetryPolicy
from swiftdiff.adapters.residency import AdapterCache, CacheStats, EvictionPolicy
from swiftdiff.adapters.transfers import StagedCopies, beside
from swiftdiff.pipeline.acceleration import PLAIN, Acceleration
from swiftdiff.pipeline.graphs import ReplayKind, TracedGraphs
from swiftdiff.pipeline.networks import ServedControlNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.telemetry.timeline import Timeline

HOST = torch.device("cpu")


@dataclass(frozen=True)
class ResidencyStats:
    """Counts of each level since the start.

    Attributes:
        host: Of the host's memory. On GPUs it is asked only for what their own memory does not have.
        devices: Of each GPU's memory.
    """

    host: CacheStats
    devices: Mapping[torch.device, CacheStats]


@dataclass(frozen=True)
class _Copy:
    """A ControlNet on one device, and how its source came to the host; None for the host's own."""

    network: ServedControlNet
    came: LoadTiming | None = None


class ResidentControlNets:
    """ControlNets in two levels of memory: the host's, read from the store, and each GPU's, copied from it.

    CPU lanes use the host's copy. All requests that name a ControlNet share one copy a device, which stays
    while any of them holds it. To prefetch is to call `load` early.

    Args:
        read: Brings a ControlNet from the store into the host's memory, on a thread of its own.
        devices: Where ControlNets are computed.
        replay_kind: How they are run on a device.
        host_budget_bytes: What ControlNets that no request holds may fill the host's memory up to.
        device_budget_bytes: The same on each GPU, CUDA graphs not counted.
        policy: Which leaves first.
        max_concurrent: Reads from the store at one time, and copies to each GPU.
        retry: For stores that do not answer.
        traces: Graphs that ControlNets of one architecture share; None is a place of their own.
        acceleration: What ControlNets are made of.
        with_shallow_path: Split them for a step cache too.
        copy_to: Copies a ControlNet to a device.
        clock: Seconds from any moment.
    """

    def __init__(
        self,
        read: Callable[[str], Loaded[ControlNetModel]],
        devices: Sequence[torch.device],
        replay_kind: Callable[[torch.device], ReplayKind],
        *,
        host_budget_bytes: int | None,
        device_budget_bytes: int | None,
        policy: EvictionPolicy = "lru",
        max_concurrent: int = 4,
        retry: RetryPolicy | None = None,
        traces: TracedGraphs | None = None,
        acceleration: Acceleration = PLAIN,
        with_shallow_path: bool = False,
        copy_to: Callable[[ControlNetModel, torch.device], ControlNetModel] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._read = read
        self._devices = tuple(dict.fromkeys(devices))
        self._replay_kind = replay_kind
        self._traces = TracedGraphs() if traces is None else traces
        self._acceleration = acceleration
        self._with_shallow_path = with_shallow_path
        self._copy_to = copy_to
        self._clock = clock
        self._host = AdapterLoader(
            self._read_to_host,
            AdapterCache(host_budget_bytes, policy),
            max_concurrent=max_concurrent,
            retry=retry,
            kind="controlnet",
            clock=clock,
        )
        self._on_device: dict[torch.device, AdapterLoader[_Copy]] = {
            device: AdapterLoader(
                self._copier(device),
                AdapterCache(device_budget_bytes, policy),
                max_concurrent=max_concurrent,
                retry=RetryPolicy(attempts=1),  # the host's loader has tried again already
                kind="controlnet_copy",
                clock=clock,
            )
            for device in self._devices
            if device.type != HOST.type
        }

    @property
    def stats(self) -> ResidencyStats:
        """Counts so far."""
        return ResidencyStats(
            self._host.stats, {device: loader.stats for device, loader in self._on_device.items()}
        )

    def record_to(self, timeline: Timeline) -> None:
        """Show loads and copies in a timeline from now on."""
        for loader in (self._host, *self._on_device.values()):
            loader.timeline = timeline

    def load(self, adapter_id: str) -> LoadHandle[Replicas[ServedControlNet]]:
        """Begin to load a ControlNet to every device and return at once.

        Release the handle when the devices have done what uses the ControlNet: its memory may be another's
        at once. The handle's timing counts what came from the store; a copy from the host to a GPU makes its
        source no other than ``cache``.

        Raises:
            RuntimeError: The loader is closed.
        """
        parts = {device: self._loader(device).load(adapter_id) for device in self._devices}
        return _ReplicasHandle(adapter_id, parts)

    def close(self) -> None:
        """Give up all loads and forget all ControlNets; returns when the reads under way have ended."""
        self._host.close()  # first: copies to devices wait for it
        for loader in self._on_device.values():
            loader.close()

    def _loader(self, device: torch.device) -> AdapterLoader[_Copy]:
        return self._on_device.get(device, self._host)

    def _read_to_host(self, adapter_id: str) -> Loaded[_Copy]:
        loaded = self._read(adapter_id)
        served = self._serve(loaded.value, HOST)
        return replace(loaded, value=_Copy(served), num_bytes=loaded.num_bytes + served.extra_bytes)

    def _copier(self, device: torch.device) -> Callable[[str], Loaded[_Copy]]:
        copy_to = self._copy_to or partial(copy_to_device, staged=StagedCopies(device))

        def copy_from_host(adapter_id: str) -> Loaded[_Copy]:
            with self._host.load(adapter_id) as handle:
                source = handle.result().network.controlnet
                came = handle.timing
                assert came is not None
                began = self._clock()
                controlnet = copy_to(source, device)
                prepare_s = came.prepare_s + self._clock() - began
            # Memory of weights that are arranged anew goes back to the stream that copied them: the next copy
            # there must not take it before they were read.
            with beside(device, "copy"):
                placed = _Copy(self._serve(controlnet, device), came)
            return Loaded(placed, _num_bytes(controlnet), came.bytes_read, came.fetch_s, prepare_s)

        return copy_from_host

    def _serve(self, controlnet: ControlNetModel, device: torch.device) -> ServedControlNet:
        is_computed_there = device in self._devices  # else it is only copied from there
        return ServedControlNet(
            controlnet,
            self._replay_kind(device),
            self._traces,
            acceleration=self._acceleration if is_computed_there else PLAIN,
            with_shallow_path=self._with_shallow_path,
        )


def copy_to_device(
    controlnet: ControlNetModel, device: torch.device, staged: StagedCopies | None = None
) -> ControlNetModel:
    """Return a copy of a ControlNet on a device; to a GPU beside its work.

    Args:
        controlnet: On the host.
        device: Where to.
        staged: Copies to that device; None is a new one.
    """
    staged = staged or StagedCopies(device)
    moved: dict[int, torch.Tensor] = {}
    for weight in _weights(controlnet):
        tensor = staged.copy(weight.detach())
        is_parameter = isinstance(weight, nn.Parameter)
        moved[id(weight)] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
    staged.wait()
    # Told that the weights are copied already, deepcopy copies the modules around them.
    return copy.deepcopy(controlnet, moved)


class _ReplicasHandle(LoadHandle[Replicas[ServedControlNet]]):
    """The handles of one ControlNet on each device, as one."""

    def __init__(self, adapter_id: str, parts: Mapping[torch.device, LoadHandle[_Copy]]) -> None:
        super().__init__(adapter_id, lambda _: None)
        self._parts = parts

    def ready(self) -> bool:
        return all(part.ready() for part in self._parts.values())

    def wait(self, timeout_s: float | None = None) -> bool:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for part in self._parts.values():
            part.wait(_until(end))
        return self.ready()

    def result(self, timeout_s: float | None = None) -> Replicas[ServedControlNet]:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        networks = {device: part.result(_until(end)).network for device, part in self._parts.items()}
        return Replicas(f"ControlNet {self.adapter_id!r}", networks)

    @property
    def timing(self) -> LoadTiming | None:
        timings = []
        for part in self._parts.values():
            timing = _timing_from_store(part)
            if timing is None:
                return None
            timings.append(timing)
        sources = {timing.source for timing in timings}
        return LoadTiming(
            "store" if "store" in sources else "shared" if "shared" in sources else "cache",
            sum(timing.bytes_read for timing in timings),
            max(timing.load_s for timing in timings),
            max(timing.fetch_s for timing in timings),
            max(timing.prepare_s for timing in timings),
            max(timing.attempts for timing in timings),
        )

    def release(self) -> None:
        for part in self._parts.values():
            part.release()


def _timing_from_store(part: LoadHandle[_Copy]) -> LoadTiming | None:
    """Return how a copy came, told from the store on: its own loader knows only of the host."""
    timing = part.timing
    if timing is None or timing.source == "cache":
        return timing
    came = part.result().came
    if came is None:
        return timing
    # Who waited for a copy that another request had asked for has shared that one's read too.
    source = "shared" if timing.source == "shared" and came.source == "store" else came.source
    return replace(timing, source=source, attempts=came.attempts)


def _until(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _weights(controlnet: ControlNetModel) -> list[torch.Tensor]:
    return [*controlnet.parameters(), *controlnet.buffers()]


def _num_bytes(controlnet: ControlNetModel) -> int:
    return sum(weight.nbytes for weight in _weights(controlnet))
