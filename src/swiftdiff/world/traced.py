"""Owns traced graphs of cached passes: much of a small model's time on a CPU is Python's; a graph saves it.

One graph serves every block: how many slots are in use is the size of an argument, the current block's slot
an index. It computes what eager Python does, bit for bit, and without the interpreter's lock.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from swiftdiff.world.attention import CachedPass, under_way
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kv_stores import DirectStore
from swiftdiff.world.rotary import rotate

_MAX_GRAPHS = 16  # two for each size of block and of prompt
_tracing = threading.Lock()  # the tracer notes which module it is in for the whole process

Graph = Callable[..., torch.Tensor]


class TracedPasses:
    """The traced graphs of one transformer; any number of threads may run them at a time.

    Weights must not change once a pass has run.

    Args:
        transformer: In evaluation mode; its attention layers are ready for passes.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self._transformer = transformer
        self._graphs: dict[Any, Graph] = {}

    def run(
        self,
        store: DirectStore,
        cross: CrossCache,
        inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        turns: torch.Tensor,
        *,
        keep: bool,
    ) -> torch.Tensor:
        """Return the flow of the block in the making; with ``keep``, nothing of use.

        Args:
            store: Of the clip's past; the pass has begun.
            cross: Filled.
            inputs: Latents, times and prompt as the transformer takes them.
            turns: Rotations of the block.
            keep: Whether the block's keys and values are written as they will be kept.
        """
        in_use = turns.new_empty((store.in_use, 0))
        slot = torch.tensor([store.slot], device=turns.device)
        prompts = [tensor for layer in range(store.num_layers) for tensor in cross.read(layer)]
        arguments = (*inputs, turns, slot, in_use, *store.raw, *store.rotated, *store.values, *prompts)
        key = (keep, *((tensor.shape, tensor.dtype) for tensor in (*inputs, turns, prompts[0])))
        graph = self._graphs.get(key) or self._trace(key, arguments, store.num_layers)
        # TorchScript's own optimizer costs time at the second run and gains nothing on a CPU.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return graph(*arguments)

    def _trace(self, key: Any, arguments: tuple[torch.Tensor, ...], num_layers: int) -> Graph:
        with _tracing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that become constants, and of TorchScript's age
            if key not in self._graphs:
                if len(self._graphs) >= _MAX_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                # To trace is to run: the slot is written, with what the graph will write there again.
                module = _Pass(self._transformer, num_layers, keep=key[0])
                trace: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
                graph = trace(module, arguments, check_trace=False).eval()
                # Frozen, it is one flat graph; numerics stay as they are.
                self._graphs[key] = torch.jit.freeze(graph, optimize_numerics=False)
            return self._graphs[key]


class _Pass(nn.Module):
    """A cached pass as a function of tensors alone."""

    def __init__(self, transformer: nn.Module, num_layers: int, *, keep: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self._num_layers = num_layers
        self._keep = keep

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the flow, or nothing of use where the pass is to keep."""
        latents, times, prompt, turns, slot, in_use, *layers = tensors
        num = self._num_layers
        cache = _Slots(layers[: 3 * num], num, slot, in_use, turns)
        cross = CrossCache()
        cross.fill(list(zip(layers[3 * num :: 2], layers[3 * num + 1 :: 2], strict=True)))
        with under_way(CachedPass(cache, turns, self._keep, cross)):
            flow: torch.Tensor = self.transformer(latents, times, prompt, return_dict=False)[0]
        # A pass that keeps is run for what it writes: the graph leaves out all that comes after.
        return in_use if self._keep else flow


class _Slots:
    """What a pass asks of a cache, with the slot and the number of slots as tensors."""

    def __init__(
        self,
        layers: Sequence[torch.Tensor],
        num_layers: int,
        slot: torch.Tensor,
        in_use: torch.Tensor,
        turns: torch.Tensor,
    ) -> None:
        self._raw = layers[:num_layers]
        self._rotated = layers[num_layers : 2 * num_layers]
        self._values = layers[2 * num_layers :]
        self._slot = slot
        self._in_use = in_use
        self._turns = turns

    def place(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, *, keep: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do as `BlockKVCache.place`."""
        if keep:
            self._raw[layer].index_copy_(2, self._slot, key.unsqueeze(2))
        self._rotated[layer].index_copy_(2, self._slot, rotate(key, self._turns).unsqueeze(2))
        self._values[layer].index_copy_(2, self._slot, value.unsqueeze(2))
        slots = self._in_use.size(0)
        both = (self._rotated[layer][:, :, :slots], self._values[layer][:, :, :slots])
        return both[0].flatten(2, 3), both[1].flatten(2, 3)
