"""Captures and replays CUDA graphs: one launch in place of thousands. Written for GPUs, NOT YET RUN on one.

A graph reads its arguments and writes its results at fixed addresses, so each lane has graphs of its own. The
graphs of one lane share a pool of memory, for they never run at the same time: what one keeps between its
first and its last kernel, another may overwrite. So arguments lie outside of the pool, and results are copied
out of it before the lane replays anything else.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from swiftdiff.pipeline.captured import CapturedGraphs, signature

_log = logging.getLogger(__name__)
_WARM_UPS = 2  # libraries choose kernels and allocate workspaces in the first runs
DEFAULT_MAX_BYTES = 4 * 10**9


class CaptureError(RuntimeError):
    """A capture was broken off by CUDA: what torch keeps about captures may be wrong from then on."""


@dataclass(frozen=True)
class Capture:
    """What a capture gives.

    Attributes:
        replay: Runs it again on the stream that it was captured on.
        output: What the module returned; each replay writes it anew, at the same address.
    """

    replay: Callable[[], None]
    output: Any


class CudaCapturer:
    """All that is CUDA's own about capturing. Tests on machines without a GPU put another in its place."""

    def place_of(self, device: torch.device) -> int:
        """Return a number for the calling lane's stream; 0 outside of lanes, where nothing is captured."""
        return int(torch.cuda.current_stream(device).cuda_stream)

    def new_pool(self) -> Any:
        """Return a pool of memory for one lane's graphs."""
        return torch.cuda.graph_pool_handle()

    def pool_bytes(self, pool: Any) -> int:
        """Return the device memory that a pool holds."""
        segments = torch.cuda.memory_snapshot(pool)  # type: ignore[no-untyped-call]
        return sum(int(segment["total_size"]) for segment in segments)

    def capture(self, module: nn.Module, inputs: Sequence[torch.Tensor], pool: Any) -> Capture:
        """Record what a module does with tensors that stay where they are, on the calling lane's stream.

        Other threads may go on meanwhile, but for two things: they must not wait for the whole device (see
        `captured.no_capture`), nor draw from its default random generator, which is the graph's until then.

        Raises:
            RuntimeError: The module fails, or there is too little memory.
            CaptureError: CUDA broke the capture off, most likely for an operation that waits for the device.
        """
        for _ in range(_WARM_UPS):
            module(*inputs)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(inputs[0].device)
        try:
            # thread_local: other lanes may go on allocating meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                output = module(*inputs)
        except torch.OutOfMemoryError:
            raise  # the capture itself came to its end
        except RuntimeError as error:
            raise CaptureError(str(error)) from error
        return Capture(graph.replay, output)

    def wait(self, device: torch.device) -> None:
        """Return when the device has run what was replayed, so that a graph may be let go."""
        torch.cuda.synchronize(device)


class _Key(NamedTuple):
    owner: int
    place: int
    shapes: Hashable


class CudaGraphs:
    """The CUDA graphs of all networks, within one limit. Safe to share between lanes.

    Args:
        max_graphs: Graphs kept, counted for each lane and each set of shapes; least recently used out first.
        max_bytes: What the graphs' arguments and results may take together. What they need while they run
            comes on top: as much as the most demanding graph of each lane needs.
        capturer: In place of CUDA's.
    """

    def __init__(
        self,
        max_graphs: int = 64,
        max_bytes: int | None = DEFAULT_MAX_BYTES,
        capturer: CudaCapturer | None = None,
    ) -> None:
        self.capturer = capturer or CudaCapturer()
        self._graphs: CapturedGraphs[_Key, _CudaGraph | None] = CapturedGraphs(
            max_graphs,
            max_bytes,
            size=lambda graph: 0 if graph is None else graph.num_bytes,
            before_leaving=self._wait_for,
        )
        self._pools: dict[int, Any] = {}
        self._is_broken = False
        self._owners = itertools.count()
        # Noted by the garbage collector, which may come at any moment and must not wait for a lock.
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def num_bytes(self) -> int:
        """Bytes of the graphs' arguments and results."""
        return self._graphs.num_bytes

    @property
    def pool_bytes(self) -> int:
        """Bytes of the lanes' pools: results, and what graphs need while they run."""
        with self._lock:
            return sum(map(self.capturer.pool_bytes, self._pools.values()))

    def register(self, owner: Any) -> int:
        """Return a number for who replays a module; its graphs go when it does."""
        number = next(self._owners)
        weakref.finalize(owner, self._gone.append, number)
        return number

    def get(self, owner: int, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> _CudaGraph | None:
        """Return the calling lane's graph for arguments of these shapes, captured if there is none yet.

        Returns:
            None if there can be none: the caller is no lane, the module cannot be captured, or a capture was
            broken off, after which nothing is captured or replayed any more.
        """
        if self._is_broken:
            return None
        if self._gone:
            self._forget_gone()
        place = self.capturer.place_of(arguments[0].device)
        if place == 0:
            return None
        key = _Key(owner, place, signature(arguments))
        return self._graphs.get(key, lambda: self._capture(place, module, arguments))

    def _capture(
        self, place: int, module: nn.Module, arguments: tuple[torch.Tensor, ...]
    ) -> _CudaGraph | None:
        with self._lock:
            if place not in self._pools:
                self._pools[place] = self.capturer.new_pool()
            pool = self._pools[place]
        try:
            return _CudaGraph(self.capturer, module, arguments, pool)
        except CaptureError as error:
            # Torch does not clean up (`CUDAGraph::capture_end`): it keeps freed memory that several streams
            # used, and takes its random generator for captured, for which some versions refuse all replays.
            self._is_broken = True
            _log.error(
                "the capture of %s was broken off, so all networks run eagerly until the process ends: %s",
                type(module).__name__,
                error,
            )
            return None
        except RuntimeError as error:  # out of memory, or the module's own
            _log.warning("%s cannot be captured and runs eagerly: %s", type(module).__name__, error)
            return None

    def _wait_for(self, graph: _CudaGraph | None) -> None:
        if graph is not None:
            self.capturer.wait(graph.device)

    def _forget_gone(self) -> None:
        gone = {self._gone.popleft() for _ in range(len(self._gone))}
        self._graphs.drop(lambda key: key.owner in gone)


class CudaGraphReplay:
    """Runs a module by CUDA graphs, one for each lane and each set of shapes.

    An argument that is the very tensor of the lane's last call is not copied again: arguments must not be
    changed in place between calls. Outside of lanes the module runs eagerly.

    Args:
        module: What to run; its weights may be patched in place, not replaced.
        graphs: Where graphs are kept; None is a place of its own.
    """

    def __init__(self, module: nn.Module, graphs: CudaGraphs | None = None) -> None:
        self._module = module
        self._graphs = CudaGraphs() if graphs is None else graphs
        self._number = self._graphs.register(self)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Run the graph of these shapes on the current stream, capturing it the first time."""
        graph = self._graphs.get(self._number, self._module, arguments)
        return self._module(*arguments) if graph is None else graph(*arguments)


class _CudaGraph:
    """One captured graph with the places of its arguments; for one lane."""

    def __init__(
        self, capturer: CudaCapturer, module: nn.Module, arguments: tuple[torch.Tensor, ...], pool: Any
    ) -> None:
        self.device = arguments[0].device
        self._inputs = [torch.empty_like(argument).copy_(argument) for argument in arguments]
        # Weak, for else every argument of the last call would stay in memory, once for each graph.
        self._last = [weakref.ref(argument) for argument in arguments]
        self._capture = capturer.capture(module, self._inputs, pool)
        output = self._capture.output
        outputs = (output,) if isinstance(output, torch.Tensor) else output
        self.num_bytes = sum(tensor.nbytes for tensor in (*self._inputs, *outputs))

    def __call__(self, *arguments: torch.Tensor) -> Any:
        for index, argument in enumerate(arguments):
            if self._last[index]() is not argument:
                self._inputs[index].copy_(argument)
                self._last[index] = weakref.ref(argument)
        self._capture.replay()
        # Copies: the next replay on this lane writes there, and another lane may read these still.
        output = self._capture.output
        if isinstance(output, torch.Tensor):
            return output.clone()
        return tuple(tensor.clone() for tensor in output)
