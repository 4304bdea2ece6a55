"""Keeps pristine copies of the weights that LoRAs change, on the device while the budget allows, else on the
host."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch

from swiftdiff.adapters.model_layers import Target
from swiftdiff.adapters.transfers import HostArena


class PristineWeights:
    """Copies of weights as they were before the first LoRA, made when a weight is first changed.

    A copy is kept for good: restoring needs no second one, and their bytes never exceed the model's.

    Args:
        device_budget_bytes: Bytes that copies may take on the weights' own device; further ones go to the
            host (page-locked if the weights are on a GPU). None is no limit.
    """

    def __init__(self, device_budget_bytes: int | None = None) -> None:
        self._budget = device_budget_bytes
        self._copies: dict[Target, torch.Tensor] = {}
        self._changed: dict[Target, None] = {}  # in order
        self._device_bytes = 0
        self._on_host: HostArena | None = None
        self.num_bytes = 0

    def __getitem__(self, target: Target) -> torch.Tensor:
        return self._copies[target]

    @property
    def device_bytes(self) -> int:
        """Bytes of the copies on the weights' own device."""
        return self._device_bytes

    def keep(self, weights: Iterable[tuple[Target, torch.Tensor]]) -> None:
        """Copy weights that have no copy yet, and note that all of them are about to change.

        A weight counts as changed before the first write to it: an interruption loses nothing.
        """
        for target, weight in weights:
            if target not in self._copies:
                self._copies[target] = self._copy(weight.detach())
            self._changed[target] = None

    def put_back(self, weights: Mapping[Target, torch.Tensor]) -> list[Target]:
        """Write the pristine values into every changed weight and return which those were.

        An interruption loses nothing: what was not noted as put back is put back next time.
        """
        changed = list(self._changed)
        # Torch copies a list in a few kernels only if all of it is on one device, and before version 2.11
        # wrongly if it is of several types (pytorch/pytorch 173383).
        alike: dict[tuple[bool, torch.dtype], list[Target]] = defaultdict(list)
        for target in changed:
            is_near = self._copies[target].device == weights[target].device
            alike[is_near, weights[target].dtype].append(target)
        for targets in alike.values():
            torch._foreach_copy_(
                [weights[target] for target in targets],
                [self._copies[target] for target in targets],
                non_blocking=True,
            )
        self._changed.clear()
        return changed

    def _copy(self, weight: torch.Tensor) -> torch.Tensor:
        copy = None
        if self._budget is None or self._device_bytes + weight.nbytes <= self._budget:
            with contextlib.suppress(torch.OutOfMemoryError):  # a full device is as good as a spent budget
                copy = weight.clone()
                self._device_bytes += weight.nbytes
        if copy is None:
            if self._on_host is None:
                self._on_host = HostArena(is_pinned=weight.is_cuda)
            copy = self._on_host.like(weight)
            copy.copy_(weight)
        self.num_bytes += weight.nbytes
        return copy
