"""Owns the making of a traced graph: a module as one flat list of what it computes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Graph = Callable[..., Tensor]

# What may give back the very tensor that it was given.
_PERHAPS_NOTHING: Final = (Tensor.to, Tensor.float, Tensor.type_as, Tensor.contiguous, F.dropout)
_SIZES: Final = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]


def trace(module: nn.Module, arguments: tuple[Tensor, ...]) -> Graph:
    """Run a module once and return the graph of what it did; it computes the same, bit for bit.

    Sizes become constants, and so does what depends on neither weights nor arguments. Call the graph under
    ``torch.jit.optimized_execution(False)``.

    Args:
        module: In evaluation mode; its weights become constants.
        arguments: Of its ``forward``; it may write to them.
    """
    trace_module: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
    with _Unrecorded():
        graph = trace_module(module, arguments, check_trace=False).eval()
    # Frozen, it is one flat graph; numerics stay as they are.
    frozen: Graph = torch.jit.freeze(graph, optimize_numerics=False)
    return frozen


class _Unrecorded(TorchFunctionMode):
    """Keeps out of a trace what computes nothing: casts to a tensor's own dtype, and questions of size."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _SIZES:
            return _without_tracing(func, args, kwargs)
        if func in _PERHAPS_NOTHING and _without_tracing(func, args, kwargs) is args[0]:
            return args[0]
        return func(*args, **(kwargs or {}))


def _without_tracing(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    set_state: Callable[[Any], None] = torch._C._set_tracing_state  # type: ignore[attr-defined]
    state = torch._C._get_tracing_state()
    set_state(None)
    try:
        return func(*args, **(kwargs or {}))
    finally:
        set_state(state)
