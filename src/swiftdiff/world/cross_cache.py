"""Owns what a prompt leaves in cross-attention: keys and values that are made once and used at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class CrossCache:
    """One prompt's keys and values in cross-attention: made by the first pass that is given this object,
    used by all later ones. A new prompt takes a new object; one that is filled may serve several threads.
    """

    def __init__(self) -> None:
        self._layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    @property
    def is_filled(self) -> bool:
        """Whether a pass has made them."""
        return bool(self._layers)

    @property
    def bytes(self) -> int:
        """Their memory."""
        return sum(tensor.nbytes for pair in self._layers for tensor in pair)

    def fill(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take the keys and values of every layer, [batch, heads, prompt tokens, head_dim] each."""
        self._layers = tuple(layers)

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values."""
        return self._layers[layer]
