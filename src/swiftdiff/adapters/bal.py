"""Decides when an arriving LoRA is patched: bounded asynchronous loading (SwiftDiffusion, arXiv 2407.02031).

Denoising starts without the LoRAs. At each step boundary what has arrived is patched; before step k the
request waits for the rest. k = 0 is synchronous: the picture is the same as stock's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.adapters.loading import LoadHandle
from swiftdiff.adapters.patcher import PatchReport, WeightPatcher
from swiftdiff.errors import ConfigError
from swiftdiff.request import AdapterRecord

_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")


def resolve_bound(bound: int | str, num_inference_steps: int) -> int:
    """Return k, the step that waits for LoRAs which have not arrived, counted from 0.

    Args:
        bound: A number of steps, or a share of them such as ``"40%"`` (rounded down); what is more than the
            steps means the last one, so that a LoRA is always in the picture.
        num_inference_steps: At least 1.

    Raises:
        ConfigError: It is negative, or neither a number nor a share up to 100%.
    """
    if isinstance(bound, str):
        share = _SHARE.fullmatch(bound.strip())
        if share is None or float(share[1]) > 100:
            raise ConfigError.for_field("bound", bound, 'an integer from 0 or a share such as "40%"')
        bound = int(num_inference_steps * float(share[1]) / 100 + 1e-9)
    elif isinstance(bound, bool) or bound < 0:
        raise ConfigError.for_field("bound", bound, 'an integer from 0 or a share such as "40%"')
    return min(bound, max(0, num_inference_steps - 1))


@dataclass(frozen=True)
class LoraBound:
    """How many steps may begin without one LoRA.

    Attributes:
        k: So many.
        note: Why it is 0 although no table says so, or None.
    """

    k: int
    note: str | None = None


@dataclass(frozen=True)
class RequestBound:
    """The step at which a request waits for its LoRAs.

    Attributes:
        k: The step, counted from 0.
        loras: What its LoRAs allow each, by id, if they have bounds of their own.
    """

    k: int
    loras: Mapping[str, LoraBound] = field(default_factory=dict)

    def note_in(self, records: Iterable[AdapterRecord]) -> tuple[AdapterRecord, ...]:
        """Return records that say what each LoRA's own bound was."""
        return tuple(
            record
            if (own := self.loras.get(record.id)) is None or record.kind != "lora"
            else record.model_copy(update={"bal_k": own.k, "bal_note": own.note})
            for record in records
        )


@dataclass(frozen=True)
class PatchedLora:
    """When one LoRA came into the picture.

    Attributes:
        adapter_id: Its id.
        scale: What its change was multiplied with.
        step: The first step with it.
    """

    adapter_id: str
    scale: float
    step: int


@dataclass(frozen=True)
class Boundary:
    """What happened before one step.

    Attributes:
        patched: LoRAs that are in from this step on.
        components: Models whose weights changed: a text encoder among them means to encode the prompt again.
        wait_s: Seconds spent waiting for loads.
        reports: What patching cost, one a patcher that changed anything.
    """

    patched: tuple[PatchedLora, ...] = ()
    components: frozenset[str] = frozenset()
    wait_s: float = 0.0
    reports: tuple[PatchReport, ...] = ()


@dataclass
class ArrivingLoras:
    """The LoRAs of one request on their way into the weights.

    The owner of the weights calls `patch_arrived` before each step, the first one included. LoRAs that are
    in the weights from an earlier request and not in this one are taken out at the first boundary; if they
    are the same ones, nothing is done. Those that arrive together are added in the request's order, so with
    k = 0 the order never depends on the store.

    Attributes:
        loads: The LoRAs as they load, each with its scale, in the request's order.
        patchers: Owners of the weights: of one model, or of the UNet and of the text encoders.
        bound: The step that waits for what is missing, as `resolve_bound` gives it.
        clock: Seconds from any moment.
    """

    loads: Sequence[tuple[LoadHandle[DeltaPlan], float]]
    patchers: Sequence[WeightPatcher]
    bound: int
    clock: Callable[[], float] = time.perf_counter
    _in: list[int] = field(default_factory=list, init=False)  # of `loads`, in the order they were patched
    _started: bool = field(default=False, init=False)

    @property
    def complete(self) -> bool:
        """Whether every LoRA is in the weights."""
        return self._started and len(self._in) == len(self.loads)

    def patch_arrived(self, before_step: int) -> Boundary:
        """Patch what has arrived; at the bound or after it, wait for what has not.

        Args:
            before_step: The step that comes next, counted from 0.

        Raises:
            AdapterError: A LoRA could not be loaded. The caller ends the request; its next one repairs the
                weights at its first boundary, or `WeightPatcher.restore` does so at once.
            CancelledError: A handle was released.
        """
        if self.complete:
            return Boundary()
        wait_s = self._wait() if before_step >= self.bound else 0.0
        known = set(self._in)
        arrived = [i for i, (load, _) in enumerate(self.loads) if i not in known and load.ready()]
        if self._started and not arrived:
            return Boundary(wait_s=wait_s)
        order = [*self._in, *arrived]
        uses = [(self.loads[i][0].result(), self.loads[i][1]) for i in order]
        reports = [patcher.apply_set(uses) for patcher in self.patchers]
        self._in, self._started = order, True
        return Boundary(
            tuple(PatchedLora(self.loads[i][0].adapter_id, self.loads[i][1], before_step) for i in arrived),
            frozenset().union(*(report.components for report in reports)),
            wait_s,
            tuple(report for report in reports if not report.skipped),
        )

    def release(self) -> None:
        """Give the adapters back, also those that have not arrived; the weights stay as they are."""
        for load, _ in self.loads:
            load.release()

    def _wait(self) -> float:
        began = self.clock()
        for load, _ in self.loads:
            load.wait()
        return self.clock() - began
