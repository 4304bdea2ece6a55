"""Runs a part of a network as eager Python, as a traced graph (CPU) or as a CUDA graph: each a `Replay`.

A captured graph belongs to the shapes of its arguments; other shapes capture another. Graphs read the weights
where they lie, so weights patched in place are seen at once. A parameter that is *replaced* is not.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import nn

_log = logging.getLogger(__name__)

ReplayKind = Literal["eager", "traced", "cuda_graph"]
Key = tuple[tuple[torch.Size | torch.dtype | torch.device | int, ...], ...]

# Tracing and CUDA's capture keep state of the whole process (the tracer's table of modules, the allocator's
# pools): one at a time, whatever lane asks. Other lanes may compute meanwhile.
_capturing = threading.Lock()


class Replay(Protocol):
    """Computes what its module computes, for tensors only. May be called by several lanes at once."""

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Return the module's output: a tensor or a tuple of tensors."""
        ...


def make_replay(kind: ReplayKind, module: nn.Module) -> Replay:
    """Return the way of running a module that a config names.

    Args:
        kind: ``traced`` is for the CPU, ``cuda_graph`` for GPUs, ``eager`` for both.
        module: Takes tensors and returns a tensor or a tuple of tensors; its weights stay its owner's.
    """
    if kind == "traced":
        return TracedReplay(module)
    if kind == "cuda_graph":
        return CudaGraphReplay(module)
    eager: Replay = module
    return eager


class TracedReplay:
    """Replays graphs recorded by `torch.jit.trace`: the same kernels in the same order, without Python.

    Bit-identical to eager, and free of the GIL, which is what lets CPU lanes run side by side. A module that
    cannot be traced runs eagerly, with a warning. TorchScript is deprecated: no other class knows of it.

    Args:
        module: What to run.
        max_graphs: Shapes remembered, least recently used out first.
    """

    def __init__(self, module: nn.Module, max_graphs: int = 16) -> None:
        self._graphs = _Captured(lambda arguments: _trace(module, arguments), max_graphs)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Run the graph of these shapes, tracing it the first time (seconds for an SDXL)."""
        graph = self._graphs.get(arguments)
        # TorchScript's own optimizer costs time at the second and third run and gains nothing on a CPU, where
        # it fuses nothing. The switch is the calling thread's, not the process's.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return graph(*arguments)


class CudaGraphReplay:
    """Replays CUDA graphs: one launch instead of thousands. Written for GPUs and NOT YET RUN on one.

    A graph writes to fixed memory, so each stream has graphs of its own. An argument that is the very tensor
    of the last call is not copied again: arguments must not be changed in place between calls.

    Args:
        module: What to run; on a GPU.
        max_graphs: Shapes (times streams) remembered, least recently used out first; each holds memory.
    """

    def __init__(self, module: nn.Module, max_graphs: int = 4) -> None:
        self._graphs = _Captured(lambda arguments: _CudaGraph(module, arguments), max_graphs)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Run the graph of these shapes on the current stream, capturing it the first time."""
        return self._graphs.get(arguments)(*arguments)


class _Captured:
    """Graphs by the shapes of their arguments."""

    def __init__(self, capture: Callable[[tuple[torch.Tensor, ...]], Callable[..., Any]], limit: int) -> None:
        self._capture = capture
        self._limit = limit
        self._graphs: OrderedDict[Key, Callable[..., Any]] = OrderedDict()
        # Lanes that share weights share this too: looking up and marking as used must be one step.
        self._lock = threading.Lock()

    def get(self, arguments: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
        key = tuple((argument.shape, argument.dtype, argument.device) for argument in arguments) + _stream_of(
            arguments[0]
        )
        graph = self._find(key)
        if graph is None:
            with _capturing:
                graph = self._find(key)  # another lane may have captured it while this one waited
                if graph is None:
                    graph = self._capture(arguments)
                    self._keep(key, graph)
        return graph

    def _find(self, key: Key) -> Callable[..., Any] | None:
        with self._lock:
            if key in self._graphs:
                self._graphs.move_to_end(key)
            return self._graphs.get(key)

    def _keep(self, key: Key, graph: Callable[..., Any]) -> None:
        with self._lock:
            self._graphs[key] = graph
            while len(self._graphs) > self._limit:
                self._graphs.popitem(last=False)


def _stream_of(argument: torch.Tensor) -> Key:
    """Return what tells streams apart: a CUDA graph writes to fixed memory, so each lane needs its own."""
    return ((torch.cuda.current_stream(argument.device).cuda_stream,),) if argument.is_cuda else ()


def _trace(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # shapes become constants, as they should
            trace: Callable[..., Callable[..., Any]] = torch.jit.trace
            return trace(module, arguments, check_trace=False)
    except Exception as error:  # whatever the tracer cannot record, Python can still run
        _log.warning("%s cannot be traced and runs eagerly: %s", type(module).__name__, error)
        return module


class _CudaGraph:
    def __init__(self, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self._inputs = [torch.empty_like(argument).copy_(argument) for argument in arguments]
        self._last: list[torch.Tensor] = list(arguments)
        for _ in range(2):  # libraries choose kernels and allocate workspaces before the capture
            module(*self._inputs)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: other lanes may go on allocating meanwhile
        with torch.cuda.graph(
            self._graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
        ):
            self._output = module(*self._inputs)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        for index, argument in enumerate(arguments):
            if argument is not self._last[index]:
                self._inputs[index].copy_(argument)
                self._last[index] = argument
        self._graph.replay()
        # Copies: another lane may still read the last output when the next replay writes.
        if isinstance(self._output, torch.Tensor):
            return self._output.clone()
        return tuple(output.clone() for output in self._output)
