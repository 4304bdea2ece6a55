"""Owns what loads for requests that wait or are served: their claims on adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.adapters.loading import AdapterLoader, LoadHandle, LoadTiming
from swiftdiff.pipeline.lane import LaneFuture
from swiftdiff.pipeline.networks import ServedControlNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.resident_controlnets import ResidentControlNets
from swiftdiff.request import AdapterRecord, ImageRequest
from swiftdiff.systems.served_model import Prompts
from swiftdiff.telemetry.timeline import OFF, Timeline

# Waiting requests whose adapters load ahead. What is loaded for a request stays in memory until it has been
# served, over the caches' budgets if need be: a long queue must not fill the memory.
DEPTH = 4


@dataclass
class Incoming:
    """One request and its claims on adapters.

    Attributes:
        request: The request.
        controlnets: Its ControlNets as they load, in its order.
        loras: Its LoRAs as they load, each with its scale, in its order.
        prompts: Its prompts, if they are encoded ahead, with text encoders that no LoRA has changed.
    """

    request: ImageRequest
    controlnets: Sequence[LoadHandle[Replicas[ServedControlNet]]]
    loras: Sequence[tuple[LoadHandle[DeltaPlan], float]]
    prompts: LaneFuture[Prompts] | None = None

    def release(self) -> None:
        """Give the adapters back, also those that have not arrived."""
        for load in self.controlnets:
            load.release()
        for lora, _ in self.loras:
            lora.release()

    def records(self, step_of: Callable[[str], int | None]) -> tuple[AdapterRecord, ...]:
        """Return how each adapter came.

        Args:
            step_of: The first step with a LoRA of this id.

        Raises:
            AdapterError: One could not be loaded on this request's account, though another's may have been.
        """
        for network in self.controlnets:
            network.result()
        for lora, _ in self.loras:
            lora.result()
        came = [_record("controlnet", load.adapter_id, load.timing) for load in self.controlnets]
        for load, _ in self.loras:
            step = step_of(load.adapter_id)
            came.append(_record("lora", load.adapter_id, load.timing, step))
        return tuple(came)


class IncomingRequests:
    """The requests that adapters load for, by id.

    Args:
        controlnets: Loads ControlNets.
        loras: Loads LoRAs.

    Attributes:
        timeline: Is told for which request a load begins.
    """

    def __init__(self, controlnets: ResidentControlNets, loras: AdapterLoader[DeltaPlan]) -> None:
        self.timeline: Timeline = OFF
        self._controlnets = controlnets
        self._loras = loras
        self._ahead: dict[str, Incoming] = {}

    def look_ahead(self, waiting: Sequence[ImageRequest]) -> None:
        """Begin to load for the next requests; give up what was begun for others that no longer wait."""
        wanted = {request.request_id: request for request in waiting[:DEPTH]}
        for gone in self._ahead.keys() - wanted.keys():
            self._ahead.pop(gone).release()
        for request_id, request in wanted.items():
            if request_id not in self._ahead:
                self._ahead[request_id] = self._begin(request)

    def next_to_encode(self, waiting: Sequence[ImageRequest]) -> Incoming | None:
        """Return the next request, if its prompt is not encoded or being encoded."""
        incoming = self._ahead.get(waiting[0].request_id) if waiting else None
        return incoming if incoming is not None and incoming.prompts is None else None

    def claim(self, request: ImageRequest) -> Incoming:
        """Return a request that is served now, its adapters loading at least from now on."""
        incoming = self._ahead.pop(request.request_id, None)
        if incoming is not None and incoming.request != request:
            incoming.release()
            incoming = None
        return incoming or self._begin(request)

    def close(self) -> None:
        """Give up what loads."""
        self.look_ahead(())

    def _begin(self, request: ImageRequest) -> Incoming:
        with self.timeline.about({"request_id": request.request_id}):
            controlnets = [self._controlnets.load(use.id) for use in request.controlnets]
            loras = [(self._loras.load(use.id), use.scale) for use in request.loras]
        return Incoming(request, controlnets, loras)


def _record(
    kind: Literal["lora", "controlnet"], adapter_id: str, timing: LoadTiming | None, step: int | None = None
) -> AdapterRecord:
    assert timing is not None  # the request was served with it
    return AdapterRecord(
        kind=kind,
        id=adapter_id,
        source=timing.source,
        bytes_loaded=timing.bytes_read,
        load_s=timing.load_s,
        step_patched=step,
    )
