"""The engine: adapters load from arrival on, lanes compute side by side, weights are patched in place.

The method is SwiftDiffusion's (arXiv 2407.02031); every part is a switch of `SwiftdiffConfig`. One thread
serves and owns the weights: it patches them between steps, when no lane computes, and nothing else ever
changes them. Loader threads read files and never touch the model.

With ``bal_k`` 0 and no other approximate switch the pictures are the stock pipeline's up to rounding:
guidance's halves are computed apart, and LoRAs are added to the pristine weights as one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from diffusers import ControlNetModel
from PIL.Image import Image

from swiftdiff.adapters.bal import RequestBound
from swiftdiff.adapters.controlnet_loading import ControlNetReader
from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.adapters.loading import AdapterLoader, Loaded, RetryPolicy
from swiftdiff.adapters.lora_loading import LoraReader
from swiftdiff.adapters.residency import AdapterCache
from swiftdiff.adapters.store import AdapterStore, open_store
from swiftdiff.config import ServingConfig
from swiftdiff.models.loading import find_dtype, load_pipeline
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import resolve_model
from swiftdiff.pipeline.captured import num_captures
from swiftdiff.pipeline.denoise import Show
from swiftdiff.pipeline.graphs import TracedGraphs
from swiftdiff.pipeline.resident_controlnets import ResidentControlNets
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.systems.bal_bounds import BalBounds, FixedBound, make_bounds
from swiftdiff.systems.base import Exactness, OnStep, Served, Waiting
from swiftdiff.systems.batch import Batch
from swiftdiff.systems.batch_key import batch_key
from swiftdiff.systems.control_image import load_control_images
from swiftdiff.systems.incoming import DEPTH, Incoming, IncomingRequests
from swiftdiff.systems.no_store import no_store
from swiftdiff.systems.served_model import TEXT_ENCODERS, ServedModel
from swiftdiff.systems.service import Service
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import OFF, Timeline


class SwiftdiffSystem:
    """Serves requests one at a time or as batches, on several lanes.

    Args:
        config: The system.
        store: In place of the config's adapter store; it belongs to this object from now on.
        bounds: In place of the config's ``bal_k``.

    Raises:
        ModelError: The config's model is missing, damaged, or of a kind that cannot be split.
        AdapterError: Its adapter store cannot be opened.
        ConfigError: A lane is not a device of this machine, or ``bal_table`` is not for this model.
    """

    def __init__(
        self, config: ServingConfig, *, store: AdapterStore | None = None, bounds: BalBounds | None = None
    ) -> None:
        switches = config.swiftdiff
        self.name = config.name
        self._bounds = bounds or make_bounds(config)
        self._switches = switches
        self._source = source = resolve_model(config.model)
        self._store = store or open_store(config.adapters, source.adapter_url)
        # Lanes have threads of their own. If this thread computed with several too, OpenMP would count more
        # threads than cores and put waiting ones to sleep: all-core work then took 1.6 times as long. Beside
        # a GPU the CPU is there for what threads read, a LoRA of SDXL's size is a second's work of one core.
        self._threads_before = torch.get_num_threads()
        num_threads = config.threads or self._threads_before
        pipe = load_pipeline(
            source,
            device=config.device,
            dtype=config.dtype,
            scheduler=config.scheduler,
            num_threads=1 if config.device.startswith("cpu") else config.threads,
        )
        self._bounds.check_model({name: getattr(pipe, name) for name in ("unet", *TEXT_ENCODERS)})
        self._model = ServedModel(pipe, switches, num_threads)
        is_exact = (
            self._bounds.exactness == "exact"
            and self._model.approximations.are_none
            and switches.computes_exactly
        )
        self.exactness: Exactness = "exact" if is_exact else "approximate"
        self.num_devices = len(self._model.devices)
        self._traces = TracedGraphs()
        retry = RetryPolicy(switches.load_attempts)
        self._loras: AdapterLoader[DeltaPlan] = AdapterLoader(
            self._read_lora(config),
            AdapterCache(int(switches.lora_cache_mb * 1e6), switches.eviction),
            max_concurrent=switches.max_concurrent_loads,
            retry=retry,
            kind="lora",
        )
        self._controlnets = ResidentControlNets(
            self._read_controlnet(config),
            self._model.network_devices,
            self._model.replay_kind,
            host_budget_bytes=int(switches.controlnet_cache_mb * 1e6),
            device_budget_bytes=int(switches.controlnet_device_mb * 1e6),
            policy=switches.eviction,
            max_concurrent=switches.max_concurrent_loads,
            retry=retry,
            traces=self._traces,
            acceleration=self._model.acceleration,
            with_shallow_path=self._model.has_step_cache,
        )
        self._incoming = IncomingRequests(self._controlnets, self._loras)
        self._waiting: Waiting = lambda limit: []
        self._timeline: Timeline = OFF
        self._on_step: OnStep | None = None
        self._own_switches: RequestSwitches | None = None
        self._batch: Batch | None = None
        self._given_up: set[str] = set()  # maybe before their batch was there to be told
        self._service: Service | None = None
        self._in_weights: tuple[LoraUse, ...] | None = ()  # None: a request failed on its way, who knows

    def watch(self, waiting: Waiting) -> None:
        """Learn from ``waiting`` what comes next; see `ServingSystem.watch`."""
        if self._switches.prefetch:
            self._waiting = waiting

    def attend(self, on_step: OnStep) -> None:
        """Call this before every step; see `ServingSystem.attend`."""
        self._on_step = on_step

    def give_up(self, request_id: str) -> None:
        """Let a request end that waits for adapters, unless others of its batch wait for them too.

        From any thread; nothing if it is neither served now nor next.
        """
        self._given_up.add(request_id)
        batch = self._batch
        if batch is not None:
            batch.give_up(request_id)

    def switch(self, switches: RequestSwitches | None) -> None:
        """Serve with these in place of the config's from now on; None is the config's again."""
        self._own_switches = switches

    def record_to(self, timeline: Timeline) -> None:
        """Show lanes, loads, patches and steps in a timeline; see `ServingSystem.record_to`."""
        self._timeline = timeline
        self._incoming.timeline = timeline
        self._loras.timeline = timeline
        self._controlnets.record_to(timeline)
        self._model.record_to(timeline)

    def warm_up(self) -> None:
        """Make small pictures on every arrangement of lanes, which captures their graphs."""
        with quiet_libraries():
            self._model.warm_up(self._traces if self._store is not None else None)

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        """Make a request's pictures; see `ServingSystem.serve`."""
        (result,) = self.serve_batch([request], images_root, [self._on_step])
        if isinstance(result, Exception):
            raise result
        return result

    def serve_batch(
        self, requests: Sequence[ImageRequest], images_root: Path, on_steps: Sequence[OnStep | None]
    ) -> list[Served | Exception]:
        """Make the pictures of several requests as one batch; see `BatchingSystem.serve_batch`.

        Raises:
            ValueError: The requests may not be in one batch.
        """
        if len({batch_key(request, self._model.native_side) for request in requests}) != 1:
            raise ValueError("requests of one batch must agree in their batch_key")
        timer, captured_before = StageTimer(self._model.synchronize, self._timeline), num_captures()
        members = [self._incoming.claim(request) for request in requests]
        self._batch = batch = Batch(members, on_steps, timer)
        for request in requests:
            if request.request_id in self._given_up:
                batch.give_up(request.request_id)
        self._look_ahead()  # now, for these requests may have to wait for adapters of their own
        self._in_weights = None
        bound = self._bound_of(requests[0])
        self._service = service = Service(self._model, members, bound.k, timer, self._look_ahead)
        with quiet_libraries(), torch.inference_mode():
            latents = self._denoise(batch, service, images_root)
            batch.check_finite(latents)
            pictures = batch.decode(latents, self._model.begin_decoding, wait=self._model.decoder is None)
        if not batch.left:
            self._in_weights = requests[0].loras
        results: list[Served | Exception] = []
        for index, member in enumerate(members):
            if index in batch.left:
                results.append(batch.left[index])
                continue
            records = bound.note_in(member.records(service.first_steps.get))
            num_bytes = sum(record.bytes_loaded for record in records)
            captured = num_captures() - captured_before
            results.append(Served(*pictures[index], num_bytes, records, graphs_captured=captured))
        return results

    def stages_so_far(self, request_id: str) -> dict[str, float]:
        """Return what a request took until now; see `ServingSystem.stages_so_far`."""
        batch = self._batch
        return batch.timer.so_far() if batch is not None and request_id in batch else {}

    def finish(self) -> None:
        """Give back the request's adapters; restore the weights unless the next request wants them so."""
        if self._service is not None:
            self._service.close()
            self._service = None
        self._model.synchronize()  # a request that failed may have left work that reads its adapters
        if self._batch is not None:
            self._batch.release()
            self._batch = None
        self._given_up.clear()
        following = self._waiting(1)
        if self._in_weights is None or not following or following[0].loras != self._in_weights:
            self._model.restore()
            self._in_weights = ()
            self._model.synchronize()

    def close(self) -> None:
        """End threads, give back models and the store's temporary files."""
        if self._batch is not None:
            self._batch.release()
        self._incoming.close()
        self._loras.close()
        self._controlnets.close()
        self._model.close()
        torch.set_num_threads(self._threads_before)
        if self._store is not None:
            self._store.close()

    def _read_lora(self, config: ServingConfig) -> Callable[[str], Loaded[DeltaPlan]]:
        if self._store is None:
            return self._refuse("LoRA")
        return LoraReader(
            self._store,
            self._model.layers,
            device=config.device,
            expected_sha256=self._bounds.expected_sha256,
        )

    def _read_controlnet(self, config: ServingConfig) -> Callable[[str], Loaded[ControlNetModel]]:
        if self._store is None:
            return self._refuse("ControlNet")
        return ControlNetReader(self._store, self._model.unet, dtype=find_dtype(config.dtype))

    def _refuse(self, kind: str) -> Callable[[str], NoReturn]:
        def refuse(adapter_id: str) -> NoReturn:
            raise no_store(kind, adapter_id, self._source)

        return refuse

    def _bound_of(self, request: ImageRequest) -> RequestBound:
        own = self._own_switches
        if own is None or own.bal_k is None:
            return self._bounds.bound_of(request)
        return FixedBound(own.bal_k).bound_of(request)

    def _denoise(self, batch: Batch, service: Service, images_root: Path) -> torch.Tensor:
        """Return the denoised latents of a batch's requests, rows in their order."""
        timer, requests, first = batch.timer, batch.requests, batch.members[0]
        with timer.stage("control_image"):
            images = [load_control_images(request, images_root) for request in requests]
        prompts = service.encode_first()
        with timer.stage("controlnet_wait"):
            networks = [load.result() for load in first.controlnets]
        began = timer.now()
        with timer.under_way("denoise", began):
            controls = [
                self._model.control_input(requests, index, network, [own[index] for own in images])
                for index, network in enumerate(networks)
            ]
            latents = self._model.denoise(
                requests,
                prompts,
                controls,
                service.before_step,
                switches=self._own_switches,
                show=self._show(batch, service),
            )
        ended = timer.now()
        service.end_steps(ended)
        timer.add("denoise", ended - began - service.between_steps_s)
        self._timeline.add("denoise", began, ended, self._timeline.context)
        return latents

    def _show(self, batch: Batch, service: Service) -> Show | None:
        if not batch.is_attended:
            return None
        timer = batch.timer

        def draw(latents: torch.Tensor) -> list[Image]:
            with timer.stage("preview"):
                began = timer.now()
                pictures = self._model.decode(latents)
                service.between_steps_s += timer.now() - began
                return pictures

        return lambda step, num_steps, latents: batch.show(step, num_steps, latents, draw)

    def _look_ahead(self) -> Incoming | None:
        waiting = self._waiting(DEPTH)
        self._incoming.look_ahead(waiting)
        return self._incoming.next_to_encode(waiting)
