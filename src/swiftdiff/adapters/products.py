"""Computes patched weights: products of factors, added in place, many layers by one call.

Few calls matter more than few bytes: torch gives up Python's lock in each, and gets it back only when the
threads that load the next adapters let go of it (milliseconds each time, were there a call for every layer).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from swiftdiff.adapters.delta_plan import DeltaGroup, DeltaPlan

ScaledPlan = tuple[DeltaPlan, float]

#: Returns a group with its factors on the weights' device.
Bring = Callable[[DeltaGroup], DeltaGroup]


def add_products(weights: list[torch.Tensor], group: DeltaGroup, scale: float) -> None:
    """Add ``scale · up @ down`` to each weight of a group, in place.

    Half-precision weights are summed in float32 and rounded once.

    Args:
        weights: The weights.
        group: With its factors on their device.
        scale: Of the LoRA.
    """
    first, up, down = weights[0], group.up, group.down
    if len(weights) == 1 and first.dtype == torch.float32 and first.is_contiguous():
        first.view(first.shape[0], -1).addmm_(up[0], down[0], alpha=scale)
    elif first.dtype == torch.float32:
        changes = [change.view(group.shape) for change in torch.bmm(up, down).unbind()]
        torch._foreach_add_(weights, changes, alpha=scale)
    else:
        _write(_gather(weights, group).baddbmm_(up, down, alpha=scale), weights, group)


def recompute(
    weights: list[torch.Tensor],
    pristine: Sequence[torch.Tensor],
    group: DeltaGroup,
    uses: Sequence[ScaledPlan],
    bring: Bring,
) -> None:
    """Set a group's weights to their pristine values plus all LoRAs, in float32, rounded once.

    Args:
        weights: The weights to write.
        pristine: Their pristine values, on any device.
        group: Names the weights.
        uses: Every LoRA that changes any of them, in order. DoRA layers scale what was there before them, as
            PEFT's merge does, by the length that the pristine weight has with the layer's change alone.
        bring: Brings the LoRAs' groups to the weights' device.
    """
    near = [value.to(weights[0].device, non_blocking=True) for value in pristine]
    base = _gather(near, group)
    changes = [(_members(group, plan), scale) for plan, scale in uses]
    has_lengths = any(other.magnitude is not None for members, _ in changes for other in members)
    total = base.clone() if has_lengths else base  # else nobody asks for the pristine values again
    for members, scale in changes:
        for other, pairs in members.items():
            _add_members(base, total, bring(other), pairs, scale)
    _write(total, weights, group)


def _members(group: DeltaGroup, plan: DeltaPlan) -> dict[DeltaGroup, list[tuple[int, int]]]:
    """Return a plan's groups with layers of a group: for each layer its place here and its place there."""
    members: dict[DeltaGroup, list[tuple[int, int]]] = defaultdict(list)
    for index, target in enumerate(group.targets):
        if target in plan.places:
            other, place = plan.places[target]
            members[other].append((index, place))
    return members


def _gather(values: Sequence[torch.Tensor], group: DeltaGroup) -> torch.Tensor:
    """Return weights of a group as one tensor, [n, out, in · height · width], in float32."""
    together = torch.empty((len(values), *group.shape), dtype=torch.float32, device=values[0].device)
    torch._foreach_copy_(list(together.unbind()), list(values))
    return together.flatten(2)


def _write(total: torch.Tensor, weights: list[torch.Tensor], group: DeltaGroup) -> None:
    torch._foreach_copy_(weights, [value.view(group.shape) for value in total.unbind()])


def _add_members(
    base: torch.Tensor, total: torch.Tensor, other: DeltaGroup, pairs: list[tuple[int, int]], scale: float
) -> None:
    """Add the changes of another group's layers: pairs are places in ``total`` and in that group."""
    places = [place for _, place in pairs]
    is_whole = places == list(range(len(other.targets)))
    up, down = (other.up, other.down) if is_whole else (other.up[places], other.down[places])
    if other.magnitude is None and [index for index, _ in pairs] == list(range(len(total))):
        total.baddbmm_(up, down, alpha=scale)
        return
    changes = torch.bmm(up, down).mul_(scale)
    there = [total[index] for index, _ in pairs]
    torch._foreach_add_(there, list(changes.unbind()))
    if other.magnitude is not None:
        for (index, place), change in zip(pairs, changes.unbind(), strict=True):
            length = torch.linalg.vector_norm(base[index] + change, dim=1)
            total[index].mul_((other.magnitude[place] / length).unsqueeze(1))
