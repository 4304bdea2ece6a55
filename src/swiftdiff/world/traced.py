"""Owns traced graphs of cached passes: much of a small model's time on a CPU is Python's; a graph saves it.

One graph serves every block: the slots in use, and the current block's, are views that the cache hands in.
What no block changes is left out: what follows from the timestep alone is computed once and handed in, and
casts to a dtype that a tensor has already are not recorded. A graph computes what eager Python does, bit for
bit, and without the interpreter's lock.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from swiftdiff.world.attention import CachedPass, Conditions, under_way
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kv_stores import VIEWS_PER_LAYER, DirectStore, LayerViews
from swiftdiff.world.tracing import Graph, trace

_MAX_GRAPHS = 16  # two for each size of block and of prompt
_MAX_TIMESTEPS = 64  # a session has five
_tracing = threading.Lock()  # so that two threads do not trace the same graph


class TracedPasses:
    """The traced graphs of one transformer; any number of threads may run them at a time.

    Args:
        transformer: In evaluation mode; its layers are ready for passes, its weights will not change.
    """

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        self._transformer = transformer
        self._graphs: dict[Any, Graph] = {}
        self._conditions = lru_cache(_MAX_TIMESTEPS)(self._embed)

    def run(
        self,
        store: DirectStore,
        cross: CrossCache,
        latents: torch.Tensor,
        timestep: float,
        turns: torch.Tensor,
        *,
        keep: bool,
    ) -> torch.Tensor:
        """Return the flow of the block in the making; with ``keep``, nothing of use.

        Args:
            store: Of the clip's past; the pass has begun.
            cross: Filled.
            latents: On the device and of the dtype of the transformer.
            timestep: Of the block.
            turns: Rotations of the block.
            keep: Whether the block's keys and values are written as they will be kept.
        """
        conditions = self._conditions(timestep, latents.shape[0])
        prompts = [tensor for layer in range(store.num_layers) for tensor in cross.read(layer)]
        arguments = (latents, turns, *conditions, *store.views(), *prompts)
        key = (keep, *((tensor.shape, tensor.dtype) for tensor in (latents, turns, prompts[0])))
        graph = self._graphs.get(key) or self._trace(key, arguments, store.num_layers)
        # TorchScript's own optimizer costs time at the second run and gains nothing on a CPU.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return graph(*arguments)

    def _embed(self, timestep: float, batch: int) -> Conditions:
        """Return what the transformer makes of a timestep, and of no prompt."""
        weight = self._transformer.patch_embedding.weight
        with torch.inference_mode(False), torch.no_grad():  # any thread may use them
            times = torch.full((batch,), timestep, dtype=torch.float32, device=weight.device)
            nothing = weight.new_empty((batch, 0, self._transformer.config.text_dim))
            time, projected, prompt, _ = self._transformer.condition_embedder(times, nothing)
            return time, projected, prompt

    def _trace(self, key: Any, arguments: tuple[torch.Tensor, ...], num_layers: int) -> Graph:
        with _tracing, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that become constants, and of TorchScript's age
            if key not in self._graphs:
                if len(self._graphs) >= _MAX_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                # To trace is to run: the slot is written, with what the graph will write there again.
                self._graphs[key] = trace(_Pass(self._transformer, num_layers, keep=key[0]), arguments)
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
        latents, turns, time, projected, prompt, *layers = tensors
        num_views = VIEWS_PER_LAYER * self._num_layers
        views = zip(*[iter(layers[:num_views])] * VIEWS_PER_LAYER, strict=True)
        cross = CrossCache()
        cross.fill(list(zip(layers[num_views::2], layers[num_views + 1 :: 2], strict=True)))
        cache = _Slots([LayerViews(*each) for each in views], turns)
        step = CachedPass(cache, turns, self._keep, cross, (time, projected, prompt))
        with under_way(step):
            # In place of times: the conditions follow from them, and are there.
            flow: torch.Tensor = self.transformer(latents, time[:, 0], prompt, return_dict=False)[0]
        # A pass that keeps is run for what it writes: the graph leaves out all that comes after.
        return turns if self._keep else flow


class _Slots:
    """What a pass asks of a cache."""

    def __init__(self, layers: Sequence[LayerViews], turns: torch.Tensor) -> None:
        self._layers = layers
        self._turns = turns

    def place(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, *, keep: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do as `BlockKVCache.place`."""
        views = self._layers[layer]
        if keep:
            views.raw_slot.copy_(key)
        views.write(key, value, self._turns)
        return views.keys, views.values
