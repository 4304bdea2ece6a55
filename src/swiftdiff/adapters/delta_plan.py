"""Owns what one LoRA adds to one model's weights, laid out so that many layers are changed by one product."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from swiftdiff.adapters.lora_reading import LoraWeights, ReadLayer
from swiftdiff.adapters.model_layers import ModelLayers, Target
from swiftdiff.errors import AdapterError

# Elements of the changes that one batched product makes (4 MiB of float32): small enough to stay in a CPU's
# cache, large enough that SDXL's narrow layers are few products. Larger layers are groups of one.
ELEMENTS_AT_ONCE = 2**20
# On a GPU (256 MiB): every launch costs as much as a small product, and SDXL's 722 layers are some 40 groups.
ELEMENTS_AT_ONCE_ON_GPU = 2**26


@dataclass(frozen=True, eq=False)
class DeltaGroup:
    """Layers of one component whose weights have one shape and whose changes have one rank.

    The change of target ``i`` is ``up[i] @ down[i]``, times ``alpha_scales[i]`` if there are any.

    Attributes:
        targets: The layers, n of them.
        shape: Shape of each weight; a convolution's is multiplied as ``[out, in · height · width]``.
        down: ``[n, rank, in]``, float32, or as it was stored.
        up: ``[n, out, rank]``, of the same type.
        magnitude: DoRA's lengths ``[n, out]``, float32; None for plain LoRAs.
        alpha_scales: ``[n, 1, 1]``, float32: alpha / rank; None where ``up`` has it already.
    """

    targets: tuple[Target, ...]
    shape: tuple[int, ...]
    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor | None = None
    alpha_scales: torch.Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the factors."""
        tensors = (self.down, self.up, self.magnitude, self.alpha_scales)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> DeltaGroup:
        """Return the group with ``change`` done to each of its tensors."""
        magnitude = None if self.magnitude is None else change(self.magnitude)
        scales = None if self.alpha_scales is None else change(self.alpha_scales)
        return DeltaGroup(self.targets, self.shape, change(self.down), change(self.up), magnitude, scales)

    def widened(self) -> DeltaGroup:
        """Return the group in float32, with alpha / rank in ``up``: the same bits wherever that is done."""
        down, up = self.down.float(), self.up.float()
        if self.alpha_scales is not None:
            up = up * self.alpha_scales
        return DeltaGroup(self.targets, self.shape, down, up, self.magnitude)


@dataclass(frozen=True, eq=False)
class DeltaPlan:
    """Everything one LoRA changes in one model. Built once, off the thread that computes; never changed.

    Attributes:
        adapter_id: The LoRA's id.
        digest: Names its content: plans of one model with equal digests do the same.
        groups: Layers of one shape and rank each; every layer is in one group.
    """

    adapter_id: str
    digest: str
    groups: tuple[DeltaGroup, ...]

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all factors."""
        return sum(group.num_bytes for group in self.groups)

    @cached_property
    def components(self) -> frozenset[str]:
        """Which models it changes, such as ``{"unet", "text_encoder"}``."""
        return frozenset(target.component for group in self.groups for target in group.targets)

    @cached_property
    def places(self) -> dict[Target, tuple[DeltaGroup, int]]:
        """Group and index of each layer."""
        return {target: (group, i) for group in self.groups for i, target in enumerate(group.targets)}

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> DeltaPlan:
        """Return the plan with its factors on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self) -> DeltaPlan:
        """Return the plan in page-locked host memory, from where copies to a GPU run beside its work."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> DeltaPlan:
        return DeltaPlan(self.adapter_id, self.digest, tuple(group.mapped(change) for group in self.groups))


def build_plan(
    weights: LoraWeights,
    model: ModelLayers,
    elements_at_once: int = ELEMENTS_AT_ONCE,
    *,
    as_stored: bool = False,
) -> DeltaPlan:
    """Match a LoRA with a model's layers. Reads no weight of the model, so any thread may do it.

    Args:
        weights: The LoRA.
        model: The model's layers.
        elements_at_once: Weights that one product changes at most; a larger layer is a group of its own.
        as_stored: Keep half-precision factors in half the bytes, for a GPU to widen: all of an SDXL's take a
            core a second, and as long again to copy.

    Raises:
        AdapterError: A layer is not in the model, or its shape is another: the message names file and key.
    """
    alike: dict[tuple[object, ...], list[tuple[Target, ReadLayer]]] = defaultdict(list)
    for target, layer in _matches(weights, model):
        shape = model.shapes[target]
        _check_fit(weights, layer, target, shape)
        dtypes = (layer.lora.down.dtype, layer.lora.up.dtype)
        key = (target.component, shape, layer.lora.rank, layer.magnitude is not None, dtypes)
        alike[key].append((target, layer))
    groups = []
    for members in alike.values():
        shape = model.shapes[members[0][0]]
        count = max(1, elements_at_once // torch.Size(shape).numel())
        groups += [_group(shape, members[at : at + count]) for at in range(0, len(members), count)]
    widened = groups if as_stored else [group.widened() for group in groups]
    return DeltaPlan(weights.adapter_id, weights.digest, tuple(widened))


def _matches(weights: LoraWeights, model: ModelLayers) -> Iterator[tuple[Target, ReadLayer]]:
    found = [model.names.get((layer.component, layer.name)) for layer in weights.layers]
    missing = [layer for layer, target in zip(weights.layers, found, strict=True) if target is None]
    if missing:
        which = "none" if len(missing) == len(found) else f"{len(missing)} of {len(found)}"
        reason = "made for another base model" if len(missing) == len(found) else "unknown layers"
        raise AdapterError(
            f"LoRA {weights.adapter_id!r} does not fit the model ({reason}): "
            + (f"{which} of its layers is" if which == "none" else f"{which} layers are not")
            + f" in it, such as {missing[0].key} in {weights.file_name}"
        )
    seen: dict[Target, ReadLayer] = {}
    for layer, target in zip(weights.layers, found, strict=True):
        assert target is not None
        if target in seen:
            raise AdapterError(
                f"LoRA {weights.adapter_id!r}: {seen[target].key} and {layer.key} in {weights.file_name} "
                f"name the same layer, {target}"
            )
        seen[target] = layer
        yield target, layer


def _check_fit(weights: LoraWeights, layer: ReadLayer, target: Target, shape: tuple[int, ...]) -> None:
    down, up = layer.lora.down, layer.lora.up
    inputs = tuple(down.shape[1:])
    # a 1×1 convolution and a linear layer are the same product, and trainers store either as either
    same = inputs == shape[1:] or (_is_flat(inputs) and _is_flat(shape[1:]) and inputs[0] == shape[1])
    if not same or up.shape[0] != shape[0]:
        raise AdapterError(
            f"LoRA {weights.adapter_id!r} does not fit the model: {layer.key} in {weights.file_name} has "
            f"shape {list(down.shape)} with an up matrix of {list(up.shape)}, but {target} has a weight of "
            f"{list(shape)}; it was made for another base model"
        )


def _is_flat(inputs: tuple[int, ...]) -> bool:
    return all(side == 1 for side in inputs[1:])


def _group(shape: tuple[int, ...], members: Sequence[tuple[Target, ReadLayer]]) -> DeltaGroup:
    loras = [layer.lora for _, layer in members]
    down = torch.stack([lora.down.flatten(1) for lora in loras])
    up = torch.stack([lora.up.flatten(1) for lora in loras])
    scales = torch.tensor([lora.scale for lora in loras]).view(-1, 1, 1)
    magnitudes = [layer.magnitude.flatten() for _, layer in members if layer.magnitude is not None]
    return DeltaGroup(
        tuple(target for target, _ in members),
        shape,
        down,
        up,
        torch.stack(magnitudes).float() if magnitudes else None,
        scales if bool((scales != 1).any()) else None,
    )
