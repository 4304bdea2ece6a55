"""Owns a model's weights while LoRAs come and go: patches them in place, restores them bit for bit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from swiftdiff.adapters.delta_plan import DeltaGroup, DeltaPlan
from swiftdiff.adapters.model_layers import ModelLayers, Target
from swiftdiff.adapters.pristine import PristineWeights
from swiftdiff.adapters.products import ScaledPlan, add_products, recompute
from swiftdiff.adapters.transfers import ArrivingFactors, beside
from swiftdiff.errors import ModelError

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class PatchReport:
    """What a call to the patcher cost.

    Seconds are the caller's: on a GPU the work is queued on its current stream, and nothing waits for it.

    Attributes:
        patch_s: Seconds spent adding LoRAs.
        restore_s: Seconds spent putting pristine weights back.
        patched_weights: How many weights were changed.
        restored_weights: How many weights were put back.
        factor_bytes: Bytes of the LoRAs' factors that were applied.
        components: Models whose weights now differ from before the call.
    """

    patch_s: float = 0.0
    restore_s: float = 0.0
    patched_weights: int = 0
    restored_weights: int = 0
    factor_bytes: int = 0
    components: frozenset[str] = frozenset()

    @property
    def skipped(self) -> bool:
        """Whether the weights were right already."""
        return not self.components


class WeightPatcher:
    """The only one who changes a model's weights.

    A weight becomes ``W + Σ scale · alpha / rank · up @ down``: a sum of products, LoRA after LoRA in the
    order given. DoRA layers follow PEFT 0.21's merge: ``magnitude / ‖W + Δ‖ · (what is there + Δ)``. Weights
    are written in place: views, other lanes and captured graphs see the change.

    - float32: within 1e-6 of stock ``set_adapters`` + ``fuse_lora``, relative to the largest weight (the same
      sum in another order).
    - float16, bfloat16: computed in float32 and rounded once, however many LoRAs there are; stock rounds at
      every LoRA. The two differ by a few units in the last place.

    On a GPU it works on a stream of its own, after what the caller's stream has queued and before what that
    queues next; factors that lie on the host come by another, while the first of them are multiplied.

    The weights depend on the ordered list of LoRAs and scales alone, not on what was there before nor on how
    many calls brought them. One thread at a time may call; a call that fails or is interrupted leaves the
    weights pristine, or, if even the restore was interrupted, a state that the next call repairs.

    Args:
        components: Models by their names in a pipeline. LoRA parts for components that are not here are
            another patcher's: text encoders may have one of their own.
        device_budget_bytes: How many bytes of pristine copies may stay on the weights' own device; the rest
            goes to the host. None is no limit.
        on_change: Called when weights have changed; for who keeps copies of them. Its time is the patch's or
            the restore's.
        clock: Seconds from any moment.

    Raises:
        ModelError: A weight is of another dtype than float32, float16 or bfloat16, or the models are on
            several devices.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        *,
        device_budget_bytes: int | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.components = frozenset(components)
        self._weights = {
            target: _weight(components[target.component], target)
            for target in ModelLayers.of(components).shapes
        }
        devices = {weight.device for weight in self._weights.values()}
        self._device = next(iter(devices), torch.device("cpu"))
        if len(devices) > 1:
            raise ModelError.for_field("devices of the weights", sorted(map(str, devices)), "one")
        self._pristine = PristineWeights(device_budget_bytes)
        self._on_change = on_change
        self._clock = clock
        self._applied: tuple[ScaledPlan, ...] = ()
        self._torn = False  # a patch or restore did not come to its end
        self._lock = threading.Lock()

    @property
    def applied(self) -> tuple[ScaledPlan, ...]:
        """The LoRAs in the weights now, in order."""
        return self._applied

    @property
    def pristine_bytes(self) -> int:
        """Bytes of all pristine copies; at most the model's size."""
        return self._pristine.num_bytes

    def patch(self, uses: Sequence[ScaledPlan]) -> PatchReport:
        """Add LoRAs to those that are in already.

        Raises:
            RuntimeError: A plan was built for another model. The weights are pristine then, as after any
                other error.
        """
        with self._lock:
            return self._patch(tuple(uses))

    def restore(self) -> PatchReport:
        """Put back every weight that is not pristine, bit for bit."""
        with self._lock:
            return self._restore()

    def apply_set(self, uses: Sequence[ScaledPlan]) -> PatchReport:
        """Make these LoRAs, in this order, the ones in the weights.

        Does nothing if they are already; adds what is missing if the first of them are; else restores first.

        Raises:
            RuntimeError: A plan was built for another model. The weights are pristine then.
        """
        uses = tuple(uses)
        with self._lock:
            there = len(self._applied)
            if not self._torn and _same(self._applied, uses[:there]):
                return self._patch(uses[there:])
            restored = self._restore()
            return _joined(restored, self._patch(uses))

    def _patch(self, uses: tuple[ScaledPlan, ...]) -> PatchReport:
        if self._torn:
            self._restore()
        if not uses:
            return PatchReport()
        began = self._clock()
        patched: set[Target] = set()
        factor_bytes = 0
        self._torn = True
        try:
            with torch.no_grad(), beside(self._device, "patch"):
                arriving = ArrivingFactors(self._device)
                for plan, _ in uses:
                    arriving.start(plan, self.components)
                for number, use in enumerate(uses):
                    for group in self._own_groups(use[0]):
                        if not self._comes_again(group, uses[number + 1 :]):
                            self._apply(group, use, arriving)
                        patched.update(group.targets)
                        factor_bytes += group.num_bytes
                    self._applied += (use,)
                self._on_change()
        except BaseException:
            self._restore()
            raise
        self._torn = False
        components = frozenset(target.component for target in patched)
        return PatchReport(
            self._clock() - began,
            patched_weights=len(patched),
            factor_bytes=factor_bytes,
            components=components,
        )

    def _restore(self) -> PatchReport:
        began = self._clock()
        self._torn = True
        self._applied = ()
        with torch.no_grad(), beside(self._device, "patch"):
            restored = self._pristine.put_back(self._weights)
            if restored:
                self._on_change()
        self._torn = False
        components = frozenset(target.component for target in restored)
        return PatchReport(
            restore_s=self._clock() - began, restored_weights=len(restored), components=components
        )

    def _own_groups(self, plan: DeltaPlan) -> Iterable[DeltaGroup]:
        for group in plan.groups:
            if group.targets[0].component in self.components:
                yield group

    def _comes_again(self, group: DeltaGroup, later: Sequence[ScaledPlan]) -> bool:
        """Tell whether one of the LoRAs that follow changes all of these weights, and so recomputes them."""
        weight = self._weights.get(group.targets[0])
        if weight is None or weight.dtype == torch.float32:
            return False
        return any(all(target in plan.places for target in group.targets) for plan, _ in later)

    def _apply(self, group: DeltaGroup, use: ScaledPlan, arriving: ArrivingFactors) -> None:
        try:
            weights = [self._weights[target] for target in group.targets]
        except KeyError as error:
            raise RuntimeError(
                f"the plan of LoRA {use[0].adapter_id!r} is another model's: no {error}"
            ) from error
        before = (plan for plan, _ in self._applied)
        overlaps = any(target in plan.places for plan in before for target in group.targets)
        self._pristine.keep(zip(group.targets, weights, strict=True))
        rounded = weights[0].dtype != torch.float32
        if group.magnitude is not None or (rounded and overlaps):
            pristine = [self._pristine[target] for target in group.targets]
            recompute(weights, pristine, group, (*self._applied, use), arriving.get)
        else:
            add_products(weights, arriving.get(group), use[1])


def _weight(model: nn.Module, target: Target) -> torch.Tensor:
    weight = model.get_submodule(target.module).weight
    assert isinstance(weight, torch.Tensor)
    if weight.dtype not in _DTYPES:
        allowed = "float32, float16 or bfloat16 for LoRAs to be patched in"
        raise ModelError.for_field(f"dtype of {target}", weight.dtype, allowed)
    return weight


def _same(some: Sequence[ScaledPlan], others: Sequence[ScaledPlan]) -> bool:
    return len(some) == len(others) and all(
        (a.adapter_id, a.digest, a_scale) == (b.adapter_id, b.digest, b_scale)
        for (a, a_scale), (b, b_scale) in zip(some, others, strict=True)
    )


def _joined(restored: PatchReport, patched: PatchReport) -> PatchReport:
    return PatchReport(
        patched.patch_s,
        restored.restore_s,
        patched.patched_weights,
        restored.restored_weights,
        patched.factor_bytes,
        restored.components | patched.components,
    )
