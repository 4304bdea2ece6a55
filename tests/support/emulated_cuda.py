"""Makes `cuda:0`, `cuda:1` exist in a process without a GPU, so that what is written for them can run.

What is emulated: which device a tensor is on, and that devices do not mix (`emulated_tensors`); streams,
events, asynchronous copies, pinned memory and the allocator's habit of giving memory out again
(`emulated_streams`); capture and replay of graphs (`emulated_graphs`). What is not: kernels (values are the
CPU's), time, how much memory there is, and the generator of random numbers, which is the CPU's too. There is
no backward pass: torch's asks the driver.

A run is judged by its order alone, for the streams of this one run: what no test lets happen is not seen.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_graphs import EmulatedGraph, Pools, capturing
from emulated_streams import CaptureForbidsError, Clock, Machine, Queue
from emulated_tensors import EmulationMode, note_host_read

#: Where there is a GPU the tests of `tests/gpu` say more.
NEEDS_NO_GPU = pytest.mark.skipif(
    torch.cuda.is_available() or sys.platform != "linux", reason="emulates GPUs on Linux machines without"
)
_CUDA, _META = 1, 14  # c10::DeviceType


@contextmanager
def emulated_cuda(num_devices: int = 2) -> Iterator[Machine]:
    """Emulate GPUs for a block, in the calling thread and in all that begin meanwhile.

    Raises:
        AssertionError: A real GPU could have computed something else; see `Machine.findings`.
    """
    machine = Machine(num_devices)
    with pytest.MonkeyPatch.context() as patch:
        _patch_torch(patch, machine)
        _patch_threads(patch, machine)
        _set_device_guard(patch)
        patch.setattr("swiftdiff.adapters.transfers._streams", {})
        with _seen_by(machine):
            yield machine
    assert not machine.findings, "\n".join(machine.findings)


class EmulatedEvent:
    """In place of `torch.cuda.Event`; an event that was never recorded is there already."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.clock: Clock = {}
        self.device: torch.device | None = None
        self.capture: Any = None

    def record(self, stream: Any = None) -> None:
        queue = self._queue(stream)
        self.clock, self.device, self.capture = self._machine.snapshot(queue), queue.device, queue.capture

    def wait(self, stream: Any = None) -> None:
        EmulatedStream(self._machine, self._queue(stream)).wait_event(self)

    def synchronize(self) -> None:
        self._machine.synchronize(self.clock)

    def query(self) -> bool:
        """Tell whether it is certain to have come."""
        return all(self._machine.host.get(number, 0) >= tick for number, tick in self.clock.items())

    def _queue(self, stream: Any) -> Queue:
        queue: Queue = self._machine.current(self._machine.device()) if stream is None else stream.queue
        return queue

    def elapsed_time(self, end: EmulatedEvent) -> float:
        if not (self.query() and end.query()):
            raise RuntimeError("CUDA error: device not ready")
        return 0.0


class EmulatedStream:
    """In place of `torch.cuda.Stream`."""

    def __init__(self, machine: Machine, queue: Queue) -> None:
        self._machine = machine
        self.queue = queue
        self.device = queue.device
        self.cuda_stream = 0 if queue in machine.defaults else queue.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmulatedStream) and other.queue is self.queue

    def __hash__(self) -> int:
        return hash(self.queue)

    def record_event(self, event: EmulatedEvent | None = None) -> EmulatedEvent:
        event = event or EmulatedEvent(self._machine)
        event.record(self)
        return event

    def wait_event(self, event: EmulatedEvent) -> None:
        if self.queue.capture is not event.capture:
            raise CaptureForbidsError("CUDA error: dependency created on uncaptured work in another stream")
        self._machine.wait(self.queue, event.clock)

    def wait_stream(self, stream: EmulatedStream) -> None:
        self.wait_event(stream.record_event())

    def synchronize(self) -> None:
        self._machine.synchronize(self._machine.snapshot(self.queue))

    def query(self) -> bool:
        return self.record_event().query()


def _patch_torch(patch: pytest.MonkeyPatch, machine: Machine) -> None:
    def new_stream(device: Any = None, priority: int = 0) -> EmulatedStream:
        return EmulatedStream(machine, machine.new_stream(machine.device(device), priority))

    def current_stream(device: Any = None) -> EmulatedStream:
        return EmulatedStream(machine, machine.current(machine.device(device)))

    def default_stream(device: Any = None) -> EmulatedStream:
        return EmulatedStream(machine, machine.defaults[machine.device(device).index])

    def on_stream(stream: EmulatedStream | None) -> AbstractContextManager[None]:
        return nullcontext() if stream is None else machine.on(stream.queue)

    def synchronize(device: Any = None) -> None:
        machine.synchronize_device(machine.device(device))

    def new_event(**_: Any) -> EmulatedEvent:
        return EmulatedEvent(machine)

    pools = Pools()

    def graph(
        graph: EmulatedGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> AbstractContextManager[None]:
        queue = machine.new_stream(machine.device(), 0) if stream is None else stream.queue
        return capturing(machine, graph, queue, pools.get(pool))

    cuda: dict[str, Any] = {
        "CUDAGraph": lambda: EmulatedGraph(machine),
        "graph": graph,
        "graph_pool_handle": pools.new_handle,
        "memory_snapshot": pools.snapshot,
        "Stream": new_stream,
        "Event": new_event,
        "stream": on_stream,
        "current_stream": current_stream,
        "default_stream": default_stream,
        "synchronize": synchronize,
        "device": machine.on_device,
        "current_device": lambda: machine.device().index,
        "device_count": lambda: machine.num_devices,
        "is_available": lambda: machine.num_devices > 0,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "get_device_name": lambda device=None: "emulated",
        "get_device_capability": lambda device=None: (9, 0),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
    }
    for name, value in cuda.items():
        patch.setattr(torch.cuda, name, value)
    patch.setattr(torch.accelerator, "synchronize", synchronize)
    patch.setattr(torch.Tensor, "to", _to_numbered_devices(torch.Tensor.to, machine))
    for name in ("numpy", "tolist", "__array__"):
        patch.setattr(torch.Tensor, name, _reading(getattr(torch.Tensor, name), machine))
    patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)


def _to_numbered_devices(to: Any, machine: Machine) -> Any:
    """Torch would ask the guard for the number of ``cuda``, and the guard is the meta device's."""

    def numbered(value: Any) -> Any:
        is_cuda = isinstance(value, (str, torch.device)) and torch.device(value).type == "cuda"
        return machine.device(value) if is_cuda else value

    def to_numbered(self: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        options = {name: numbered(value) for name, value in options.items()}
        return to(self, *map(numbered, arguments), **options)

    return to_numbered


def _reading(method: Any, machine: Machine) -> Any:
    def read(self: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        note_host_read(machine, self)
        return method(self, *arguments, **options)

    return read


@contextmanager
def _seen_by(machine: Machine) -> Iterator[None]:
    """Let the emulation see what the calling thread computes."""
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(..., device="cuda") is seen
    try:
        with torch.no_grad(), EmulationMode(machine):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)


def _patch_threads(patch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Let new threads be seen: torch has one list of modes for each."""
    run = threading.Thread.run

    def run_seen(self: threading.Thread) -> None:
        with _seen_by(machine):
            run(self)

    patch.setattr(threading.Thread, "run", run_seen)


def _set_device_guard(patch: pytest.MonkeyPatch) -> None:
    """Let torch's own code change to a CUDA device and back, which then does nothing.

    It asks a table of guards. On a CPU's torch there is none for CUDA; that of the meta device does nothing.
    """
    torch._C._ensureCUDADeviceGuardSet()  # does the same, but only where torch was built for CUDA
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if guards[_CUDA] is None:
        patch.setitem(_Guards(guards), _CUDA, guards[_META])


class _Guards(dict[int, Any]):
    """The table as a mapping, so that it is put back as all else is."""

    def __init__(self, table: Any) -> None:
        super().__init__(enumerate(table))
        self._table = table

    def __setitem__(self, index: int, guard: Any) -> None:
        super().__setitem__(index, guard)
        self._table[index] = guard
