"""Runs a part of a network as eager Python, as a traced graph (CPU) or as a CUDA graph: each a `Replay`.

A captured graph belongs to the shapes of its arguments; other shapes capture another. Weights are read where
they lie, so weights patched in place are seen at once. A parameter that is *replaced* is not.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import nn

from swiftdiff.pipeline.captured import CapturedGraphs, signature
from swiftdiff.pipeline.cuda_graphs import CudaGraphReplay, CudaGraphs

_log = logging.getLogger(__name__)

ReplayKind = Literal["eager", "traced", "cuda_graph"]
Graph = Callable[..., Any]
Weights = tuple[torch.Tensor, ...]
# Path of a module, its parameters or buffers, and a name in them.
WeightSlot = tuple[str, dict[str, torch.Tensor | None], str]


class Replay(Protocol):
    """Computes what its module computes, for tensors only. May be called by several lanes at once."""

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Return the module's output: a tensor or a tuple of tensors."""
        ...


class TracedGraphs:
    """Traced graphs that take the weights as arguments too: one serves every module of its architecture.

    Safe to share between threads.

    Args:
        max_graphs: Graphs remembered, least recently used out first.
    """

    def __init__(self, max_graphs: int = 16) -> None:
        self._graphs: CapturedGraphs[Hashable, Graph | None] = CapturedGraphs(max_graphs)

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, architecture: str, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> Graph | None:
        """Return the graph for arguments of these shapes, traced if there is none yet.

        Args:
            architecture: Equal for modules that compute the same if their weights are the same.
            module: One of them.
            arguments: What it is called with.

        Returns:
            The graph, which takes the module's weights and then the arguments; None if the module cannot be
            traced.
        """
        key = (architecture, signature(arguments))
        return self._graphs.get(key, lambda: _trace(module, arguments))


def make_replay(
    kind: ReplayKind,
    module: nn.Module,
    graphs: TracedGraphs | None = None,
    settings: str = "",
    cuda_graphs: CudaGraphs | None = None,
) -> Replay:
    """Return the way of running a module that a config names.

    Args:
        kind: ``traced`` is for the CPU, ``cuda_graph`` for GPUs, ``eager`` for both.
        module: Takes tensors and returns a tensor or a tuple of tensors; its weights stay its owner's.
        graphs: As for `TracedReplay`.
        settings: As for `TracedReplay`.
        cuda_graphs: As for `CudaGraphReplay`.
    """
    if kind == "traced":
        return TracedReplay(module, graphs, settings)
    if kind == "cuda_graph":
        return CudaGraphReplay(module, cuda_graphs)
    eager: Replay = module
    return eager


class TracedReplay:
    """Replays graphs recorded by TorchScript's tracer: the same kernels in the same order, without Python.

    Bit-identical to eager, and free of the GIL, which is what lets CPU lanes run side by side. A module that
    cannot be traced runs eagerly, with a warning. TorchScript is deprecated: no other class knows of it.

    Args:
        module: What to run. Tensors in it that are neither parameters nor buffers become constants.
        graphs: Where graphs are kept and looked for; None is a place of its own.
        settings: What tells the module's architecture from others of the same class whose weights have the
            same names and shapes, such as its config.
    """

    def __init__(self, module: nn.Module, graphs: TracedGraphs | None = None, settings: str = "") -> None:
        self._module = module
        self._graphs = TracedGraphs() if graphs is None else graphs
        self._slots = _weight_slots(module)
        self._weights = _weights_at(self._slots)
        names = tuple(f"{path}.{name}" for path, _, name in self._slots)
        # Text, for it knows its hash: this is looked up in every call.
        self._architecture = repr((type(module), settings, names, signature(self._weights)))

    def rebind(self) -> None:
        """Look for the weights again: some were replaced by others of the same shapes."""
        self._weights = _weights_at(self._slots)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        """Run the graph of these shapes, tracing it the first time (a second or so for an SDXL)."""
        graph = self._graphs.get(self._architecture, self._module, arguments)
        if graph is None:
            return self._module(*arguments)
        # TorchScript's own optimizer costs time at the second and third run and gains nothing on a CPU, where
        # it fuses nothing. The switch is the calling thread's, not the process's.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return graph(*self._weights, *arguments)


def _weight_slots(module: nn.Module) -> list[WeightSlot]:
    """Return where a module keeps its parameters and buffers, always in the same order."""
    return [
        (path, tensors, name)
        for path, part in module.named_modules()
        for tensors in (part._parameters, part._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]


def _weights_at(slots: Sequence[WeightSlot]) -> Weights:
    return tuple(tensor for _, tensors, name in slots if (tensor := tensors[name]) is not None)


def _trace(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> Graph | None:
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # shapes become constants, as they should
            return _trace_with_weights(module, arguments)
    except Exception as error:  # whatever the tracer cannot record, Python can still run
        _log.warning("%s cannot be traced and runs eagerly: %s", type(module).__name__, error)
        return None


def _trace_with_weights(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> Graph:
    """Trace a function of weights and arguments; `torch.jit.trace` of a module takes many times as long."""
    weights = _weights_at(_weight_slots(module))
    # The tracer's own tensors take the weights' places in a copy that shares the weights, for other lanes may
    # use the module meanwhile. `torch.func.functional_call` refuses to be traced.
    stand_in = copy.deepcopy(module, {id(weight): weight for weight in weights})
    slots = _weight_slots(stand_in)

    def compute(*weights_and_arguments: torch.Tensor) -> Any:
        for (_, tensors, name), tensor in zip(slots, weights_and_arguments, strict=False):
            tensors[name] = tensor
        return stand_in(*weights_and_arguments[len(slots) :])

    # What `torch.jit.trace` does with a function. But what that traces stays until the process ends.
    recorded, *_ = torch._C._create_graph_by_tracing(
        compute, (*weights, *arguments), lambda _: "", True, False, None, []
    )
    _simplify(recorded)
    graph: Graph = torch._C._create_function_from_graph("forward", recorded)
    return graph


def _simplify(graph: Any) -> None:
    """Take out of a traced graph what computes nothing: sums on sizes, dropouts, divisions by one.

    They are most of its nodes, for shapes are constants here and the tracer records how they came about.
    """
    torch._C._jit_pass_inline(graph)
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_peephole(graph, False)
    for node in list(graph.nodes()):
        if node.kind() == "aten::dropout" or (node.kind() == "aten::div" and _is_one(node.inputsAt(1))):
            node.output().replaceAllUsesWith(node.inputsAt(0))
    torch._C._jit_pass_cse(graph)
    torch._C._jit_pass_dce(graph)


def _is_one(value: Any) -> bool:
    constant = value.toIValue()
    return constant is not None and bool(torch.as_tensor(constant).eq(1).all())
