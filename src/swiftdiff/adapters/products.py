"""Computes patched weights: products of factors, added in place, many layers by one call.

Few calls matter more than few bytes: torch gives up Python's lock in each, and gets it back only when the
threads that load the next adapters let go of it (milliseconds each time, were there a call for every layer).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from swiftdiff.adapters.delta_plan import DeltaGroup, DeltaPlan

ScaledPlan = tuple[DeltaPlan, float]


def add_products(weights: list[torch.Tensor], group: DeltaGroup, scale: float) -> None:
    """Add ``scale · up @ down`` to each weight of a group, in place.

    Half-precision weights are summed in float32 and rounded once.
    """
    first = weights[0]
    down, up = _on(first.device, group.down), _on(first.device, group.up)
    if len(weights) == 1 and first.dtype == torch.float32 and first.is_contiguous():
        first.view(first.shape[0], -1).addmm_(up[0], down[0], alpha=scale)
        return
    changes = [change.view(group.shape) for change in torch.bmm(up, down).unbind()]
    if first.dtype == torch.float32:
        torch._foreach_add_(weights, changes, alpha=scale)
        return
    sums = torch.stack(weights).float().unbind()
    torch._foreach_add_(sums, changes, alpha=scale)
    torch._foreach_copy_(weights, sums)


def recompute(
    weights: list[torch.Tensor],
    pristine: Sequence[torch.Tensor],
    group: DeltaGroup,
    uses: Sequence[ScaledPlan],
) -> None:
    """Set a group's weights to their pristine values plus all LoRAs, in float32, rounded once.

    Args:
        weights: The weights to write.
        pristine: Their pristine values, on any device.
        group: Names the weights.
        uses: Every LoRA that changes any of them, in order. DoRA layers scale what was there before them, as
            PEFT's merge does, by the length that the pristine weight has with the layer's change alone.
    """
    device = weights[0].device
    base = torch.stack([value.to(device, non_blocking=True) for value in pristine]).float().flatten(2)
    total = base.clone()
    for plan, scale in uses:
        members: dict[DeltaGroup, list[tuple[int, int]]] = defaultdict(list)
        for index, target in enumerate(group.targets):
            if target in plan.places:
                other, place = plan.places[target]
                members[other].append((index, place))
        for other, pairs in members.items():
            _add_members(base, total, other, pairs, scale)
    torch._foreach_copy_(weights, [value.view(group.shape) for value in total.unbind()])


def _add_members(
    base: torch.Tensor, total: torch.Tensor, other: DeltaGroup, pairs: list[tuple[int, int]], scale: float
) -> None:
    """Add the changes of another group's layers: pairs are places in ``total`` and in that group."""
    ups, downs = _on(total.device, other.up), _on(total.device, other.down)
    up = torch.stack([ups[place] for _, place in pairs])
    down = torch.stack([downs[place] for _, place in pairs])
    changes = torch.bmm(up, down).mul_(scale)
    there = [total[index] for index, _ in pairs]
    torch._foreach_add_(there, list(changes.unbind()))
    if other.magnitude is not None:
        for (index, place), change in zip(pairs, changes.unbind(), strict=True):
            length = torch.linalg.vector_norm(base[index] + change, dim=1)
            total[index].mul_((_on(total.device, other.magnitude[place]) / length).unsqueeze(1))


def _on(device: torch.device, factor: torch.Tensor) -> torch.Tensor:
    moved = factor.to(device, non_blocking=True)
    if moved.is_cuda:  # perhaps made on a loader's stream: its memory must outlive the work queued on ours
        moved.record_stream(torch.cuda.current_stream(device))
    return moved
