"""Owns captured graphs by what they were captured for: how many are kept, and how many there ever were.

Tracing and CUDA's capture keep state of the whole process (the tracer's table of modules, the allocator's
pools): one at a time, whatever lane asks. Other lanes may compute meanwhile.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

Graph = TypeVar("Graph")
Key = TypeVar("Key", bound=Hashable)

_capturing = threading.Lock()


class _Count:
    """Counts what several threads do, and how long that takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.number = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            self.number += 1
            self.seconds += seconds


_captures = _Count()


def num_captures() -> int:
    """Return how many graphs this process has traced, captured or compiled so far.

    To serve a request adds nothing to it if its shapes were seen before, and on GPUs its ControlNets,
    whatever LoRAs it names.
    """
    # Torch counts what it compiles, for each new shape or failed guard once.
    dynamo = sys.modules.get("torch._dynamo.utils")
    compiled = 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
    return _captures.number + compiled


def capture_seconds() -> float:
    """Return the seconds that this process has spent on what `num_captures` counts."""
    return _captures.seconds + _compile_seconds()


def _compile_seconds() -> float:
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0.0 if dynamo is None else float(dynamo.calculate_time_spent()["total_wall_time"])


@contextmanager
def no_capture() -> Iterator[None]:
    """Wait until no graph is being captured, and let none begin; CUDA refuses to be waited for meanwhile."""
    with _capturing:
        yield


class CapturedGraphs(Generic[Key, Graph]):
    """A limited number of graphs by key, each captured once. Safe to share between threads.

    Args:
        max_graphs: Graphs kept, least recently used out first.
        max_bytes: What they may take together; the last one used stays in any case. None is no limit.
        size: Bytes of a graph.
        before_leaving: Called with a graph before it is let go.
    """

    def __init__(
        self,
        max_graphs: int,
        max_bytes: int | None = None,
        size: Callable[[Graph], int] = lambda graph: 0,
        before_leaving: Callable[[Graph], None] = lambda graph: None,
    ) -> None:
        self._max_graphs = max_graphs
        self._max_bytes = max_bytes
        self._size = size
        self._before_leaving = before_leaving
        self._graphs: OrderedDict[Key, Graph] = OrderedDict()
        # Lanes that share weights share this too: looking up and marking as used must be one step.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def num_bytes(self) -> int:
        """Bytes of all graphs."""
        with self._lock:
            return self._bytes()

    def get(self, key: Key, capture: Callable[[], Graph]) -> Graph:
        """Return the graph of a key, captured now if there is none."""
        found = self._find(key)
        if found:
            return found[0]
        with _capturing:
            found = self._find(key)  # another lane may have captured it while this one waited
            if found:
                return found[0]
            began_s = time.perf_counter() - _compile_seconds()  # which are counted by themselves
            graph = capture()
            _captures.add(time.perf_counter() - _compile_seconds() - began_s)
            self._keep(key, graph)
            return graph

    def drop(self, should_leave: Callable[[Key], bool]) -> None:
        """Let go of the graphs of some keys, when none is being captured."""
        with _capturing, self._lock:
            for key in [key for key in self._graphs if should_leave(key)]:
                self._release(key)

    def _find(self, key: Key) -> tuple[Graph] | tuple[()]:
        with self._lock:
            if key not in self._graphs:
                return ()
            self._graphs.move_to_end(key)
            return (self._graphs[key],)

    def _keep(self, key: Key, graph: Graph) -> None:
        with self._lock:
            self._graphs[key] = graph
            while len(self._graphs) > 1 and self._is_over():
                self._release(next(iter(self._graphs)))

    def _is_over(self) -> bool:
        if len(self._graphs) > self._max_graphs:
            return True
        return self._max_bytes is not None and self._bytes() > self._max_bytes

    def _bytes(self) -> int:
        return sum(map(self._size, self._graphs.values()))

    def _release(self, key: Key) -> None:
        self._before_leaving(self._graphs[key])
        del self._graphs[key]


def signature(tensors: Sequence[torch.Tensor]) -> Hashable:
    """Return what a graph depends on besides values."""
    return tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
