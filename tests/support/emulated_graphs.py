"""CUDA graphs on emulated GPUs: what a capture sees is done again by a replay, with the same memory.

As on a GPU a capture computes nothing, refuses what waits, and has its memory from a pool. Graphs of one pool
may use the same bytes for what they keep no longer: a replay spoils what all other graphs of its pool hold,
which on a GPU it may do or not.
"""

from __future__ import annotations

import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from emulated_streams import CaptureForbidsError, Machine, Memory, Queue
from torch.utils._pytree import tree_leaves

Uses = Sequence[tuple[Memory, int, int, bool]]

_handles = itertools.count(1)


class EmulatedGraph:
    """In place of `torch.cuda.CUDAGraph`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._queue: Queue | None = None
        self._pool: Pool | None = None
        self._operations: list[tuple[Uses, Callable[[], None]]] = []
        self.made: list[Any] = []  # tensors

    def begin(self, queue: Queue, pool: Pool) -> None:
        if queue in self._machine.defaults:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        self._queue, self._pool = queue, pool

    def end(self) -> None:
        assert self._pool is not None
        self._pool.graphs.add(self)
        spoil(self.made)

    def record(self, again: Callable[[], Any], result: Any, made: Sequence[Any], uses: Uses) -> None:
        """Note an operation: replayed, it writes to the memory that it has made now."""
        self.made += made
        own = {tensor._real.untyped_storage()._cdata for tensor in made}

        def compute() -> None:
            for there, new in zip(tree_leaves(result), tree_leaves(again()), strict=True):
                if isinstance(there, torch.Tensor) and there.untyped_storage()._cdata in own:
                    there.copy_(new)

        self._operations.append((uses, compute))

    def record_copy(self, target: torch.Tensor, source: torch.Tensor, uses: Uses) -> None:
        """Note a copy."""
        self._operations.append((uses, lambda: _copy(target, source)))

    def replay(self) -> None:
        """Do all of it again, on the calling thread's stream."""
        assert self._pool is not None
        assert self._queue is not None
        queue = self._machine.current(self._queue.device)
        for graph in self._pool.graphs - {self}:
            spoil(graph.made)
            spoilt = [
                (tensor._memory, 0, tensor._real.untyped_storage().nbytes(), True) for tensor in graph.made
            ]
            self._machine.compute(queue, "the replay of another graph", spoilt)
        for uses, compute in self._operations:
            self._machine.compute(queue, "a replay", uses)
            compute()


class Pool:
    """Memory that graphs share."""

    def __init__(self) -> None:
        self.graphs: weakref.WeakSet[EmulatedGraph] = weakref.WeakSet()

    @property
    def num_bytes(self) -> int:
        return max((sum(tensor.nbytes for tensor in graph.made) for graph in self.graphs), default=0)


class Pools:
    """The pools by their handles."""

    def __init__(self) -> None:
        self._by_handle: dict[Any, Pool] = defaultdict(Pool)

    def new_handle(self) -> tuple[int, int]:
        return 0, next(_handles)

    def snapshot(self, handle: Any) -> list[dict[str, int]]:
        return [{"total_size": self._by_handle[handle].num_bytes}]

    def get(self, handle: Any) -> Pool:
        return self._by_handle[self.new_handle() if handle is None else handle]


def spoil(tensors: Sequence[Any]) -> None:
    """Overwrite memory with what no computation gives."""
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor._real.fill_(torch.nan)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)


@contextmanager
def capturing(machine: Machine, graph: EmulatedGraph, queue: Queue, pool: Pool) -> Iterator[None]:
    """Capture what the calling thread does on a queue."""
    machine.synchronize_device(queue.device)
    graph.begin(queue, pool)
    with machine.on(queue), machine.capturing_thread():
        queue.capture = graph
        try:
            yield
        except CaptureForbidsError as error:
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            ) from error
        finally:
            queue.capture = None
    graph.end()
