"""Owns when things happen on GPUs that are emulated: streams, events, and who must have waited for whom.

Every operation is computed at once, on the CPU. What is emulated is its moment: vector clocks say what is
certain to have happened before it, on a GPU that may be as slow as it likes. Two operations that use the same
bytes, one of them to write, must be ordered; if nothing orders them that is a finding, whatever was computed.

Threads of the host count as one: what one of them has waited for counts as waited for by all.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

#: How far streams (and the host, `HOST`) are known to have come.
Clock = dict[int, int]

HOST = 0
_STREAMS_OF_A_PRIORITY = 32  # torch hands them out in turn


class CaptureForbidsError(RuntimeError):
    """What CUDA refuses while a graph is captured."""


class Queue:
    """What a device does in order; torch's streams are names for it."""

    def __init__(self, number: int, device: torch.device, name: str) -> None:
        self.number = number
        self.device = device
        self.name = name
        self.clock: Clock = {number: 0}
        self.capture: Any = None  # the graph that is captured on it now


@dataclass(frozen=True)
class Access:
    """That some bytes of a memory were used."""

    begin: int
    end: int
    writes: bool
    actor: int
    tick: int
    what: str


@dataclass(eq=False)
class Memory:
    """A piece of memory as the allocator gave it; all views of it share this object.

    Args:
        machine: That it belongs to.
        home: The queue that it was allocated for; None is the host's pinned memory.
    """

    machine: Machine
    home: Queue | None
    is_graphs: bool = False
    recorded: set[int] = field(default_factory=set)
    accesses: list[Access] = field(default_factory=list)

    def __del__(self) -> None:
        if self.home is not None and not self.is_graphs:  # the garbage collector's moment: note it, no more
            self.machine.freed.append((self.home.number, self.recorded, self.accesses))


class PinnedMemory:
    """Which of the host's memory is page-locked; it is kept as long as the emulation lasts."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._memories: dict[int, tuple[Memory, torch.UntypedStorage]] = {}

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the host whose memory is page-locked from now on."""
        storage = tensor.untyped_storage()
        if storage.nbytes():
            self._memories[storage.data_ptr()] = (Memory(self._machine, None), storage)
        return tensor

    def find(self, tensor: torch.Tensor) -> Memory | None:
        """Return the page-locked memory of a tensor, if it has such."""
        if not self._memories or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return None
        found = self._memories.get(tensor.untyped_storage().data_ptr())
        return None if found is None else found[0]


class Machine:
    """GPUs and their host.

    Args:
        num_devices: How many GPUs.

    Attributes:
        waits: How often the host waited for a stream, by the line that did.
        findings: What a real GPU could have made wrong results of.
        pinned: The host's memory that devices use too.
        freed: Memories given back that no allocation has been checked against yet.
    """

    def __init__(self, num_devices: int) -> None:
        self.num_devices = num_devices
        self.findings: list[str] = []
        self.pinned = PinnedMemory(self)
        self.freed: deque[tuple[int, set[int], list[Access]]] = deque()
        self.lock = threading.RLock()
        self.host: Clock = {HOST: 0}
        self.waits: Counter[str] = Counter()
        self.num_operations = 0
        self.dispatch: Any = None  # carries out operations
        self._queues: dict[int, Queue] = {}
        self._by_place: dict[tuple[int, int, int], Queue] = {}
        self._handed_out: dict[tuple[int, int], int] = defaultdict(int)
        self._tombs: dict[int, list[Access]] = defaultdict(list)
        self._here = threading.local()
        self.defaults = [self._queue(index, 0, -1) for index in range(num_devices)]

    def device(self, device: Any = None) -> torch.device:
        """Return a device with its number."""
        if device is None or (isinstance(device, (str, torch.device)) and torch.device(device).index is None):
            device = getattr(self._here, "device", 0)
        index = device if isinstance(device, int) else torch.device(device).index
        if not 0 <= index < self.num_devices:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)

    def new_stream(self, device: torch.device, priority: int) -> Queue:
        """Return the next of the device's streams, as torch hands them out."""
        with self.lock:
            place = device.index, priority
            number, self._handed_out[place] = self._handed_out[place], self._handed_out[place] + 1
            return self._queue(*place, number % _STREAMS_OF_A_PRIORITY)

    def current(self, device: torch.device) -> Queue:
        """Return the calling thread's current queue on a device."""
        return self._currents().get(device.index, self.defaults[device.index])

    @contextmanager
    def on(self, queue: Queue) -> Iterator[None]:
        """Make a queue, and its device, the calling thread's for a block."""
        currents, index = self._currents(), queue.device.index
        before, device = currents.get(index, self.defaults[index]), getattr(self._here, "device", 0)
        currents[index], self._here.device = queue, index
        try:
            yield
        finally:
            currents[index], self._here.device = before, device

    @contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        """Make a device the calling thread's for a block."""
        before = getattr(self._here, "device", 0)
        self._here.device = self.device(device).index
        try:
            yield
        finally:
            self._here.device = before

    @contextmanager
    def capturing_thread(self) -> Iterator[None]:
        """Note that the calling thread captures a graph: it must not wait for anything."""
        self._here.captures = True
        try:
            yield
        finally:
            self._here.captures = False

    def allocate(self, queue: Queue) -> Memory:
        """Return new memory for a queue, which may be any that was freed for it; graphs have their own."""
        if queue.capture is not None:
            return Memory(self, queue, is_graphs=True)
        with self.lock:
            while self.freed:
                home, recorded, accesses = self.freed.popleft()
                others = (a for a in accesses if a.actor not in (home, HOST) and a.actor not in recorded)
                self._tombs[home].extend(others)
            _join(queue.clock, self.host)
            for access in self._tombs.pop(queue.number, ()):
                if queue.clock.get(access.actor, 0) < access.tick:
                    self._find(
                        f"USE AFTER FREE: memory of {queue.name} was given back and is given out again at "
                        f"{_where()}, though {self._said(access)} may not have happened yet"
                    )
            return Memory(self, queue)

    def compute(self, queue: Queue, what: str, uses: Iterable[tuple[Memory, int, int, bool]]) -> None:
        """Note an operation of a queue: (memory, first byte, byte after the last, whether it writes)."""
        with self.lock:
            self.num_operations += 1
            _join(queue.clock, self.host)
            queue.clock[queue.number] += 1
            self._use(queue.clock, queue.number, what, uses)

    def compute_on_host(self, what: str, uses: Iterable[tuple[Memory, int, int, bool]]) -> None:
        """Note that a thread of the host uses memory that devices use too."""
        with self.lock:
            self.host[HOST] += 1
            self._use(self.host, HOST, what, uses)

    def wait(self, waiter: Queue, clock: Clock) -> None:
        """Let what a queue does from now on come after what a clock knows of."""
        with self.lock:
            _join(waiter.clock, clock)

    def synchronize(self, clock: Clock) -> None:
        """Let the host wait for what a clock knows of."""
        if getattr(self._here, "captures", False):
            raise CaptureForbidsError("CUDA error: operation not permitted when stream is capturing")
        with self.lock:
            self.waits[_where()] += 1
            _join(self.host, clock)

    def synchronize_device(self, device: torch.device) -> None:
        """Let the host wait for all that a device has to do."""
        with self.lock:
            queues = [queue for queue in self._queues.values() if queue.device == device]
            if any(queue.capture is not None for queue in queues):
                raise CaptureForbidsError("CUDA error: operation not permitted when stream is capturing")
            for queue in queues:
                _join(self.host, queue.clock)

    def snapshot(self, queue: Queue) -> Clock:
        """Return what will have happened when a queue has done what it was given."""
        with self.lock:
            return dict(queue.clock)

    def take_findings(self) -> list[str]:
        """Return the findings so far, and forget them."""
        with self.lock:
            found, self.findings = self.findings, []
        return found

    def _use(
        self, clock: Clock, actor: int, what: str, uses: Iterable[tuple[Memory, int, int, bool]]
    ) -> None:
        what = f"{what} at {_where()}"
        for memory, begin, end, writes in uses:
            kept = []
            for old in memory.accesses:
                is_shared = old.begin < end and begin < old.end and (writes or old.writes)
                if is_shared and clock.get(old.actor, 0) < old.tick:
                    self._find(
                        f"RACE: {what} on {self._name(actor)} {'writes' if writes else 'reads'} memory, and "
                        f"need not come after {self._said(old)}"
                    )
                # What comes after this one and is ordered, is ordered after the old one too.
                is_covered = begin <= old.begin and old.end <= end
                if not (is_covered and (writes or (not old.writes and old.actor == actor))):
                    kept.append(old)
            kept.append(Access(begin, end, writes, actor, clock[actor], what))
            memory.accesses = kept

    def _find(self, finding: str) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    def _said(self, access: Access) -> str:
        return f"the {'write' if access.writes else 'read'} of {access.what} on {self._name(access.actor)}"

    def _name(self, actor: int) -> str:
        return "the host" if actor == HOST else self._queues[actor].name

    def _currents(self) -> dict[int, Queue]:
        if not hasattr(self._here, "queues"):
            self._here.queues = {}
        found: dict[int, Queue] = self._here.queues
        return found

    def _queue(self, index: int, priority: int, number: int) -> Queue:
        if (index, priority, number) not in self._by_place:
            name = f"cuda:{index}'s " + ("default stream" if number < 0 else f"stream {priority}/{number}")
            queue = Queue(len(self._queues) + 1, torch.device("cuda", index), name)
            self._by_place[index, priority, number] = self._queues[queue.number] = queue
        return self._by_place[index, priority, number]


def _join(clock: Clock, other: Clock) -> None:
    for number, tick in other.items():
        if clock.get(number, 0) < tick:
            clock[number] = tick


def _where() -> str:
    """Return the innermost line of the project, or of a test."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if "swiftdiff/" in name or ("tests/" in name and "tests/support/emulated" not in name):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
