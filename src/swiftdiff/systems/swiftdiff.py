"""The engine: adapters load from arrival on, lanes compute side by side, weights are patched in place.

The method is SwiftDiffusion's (arXiv 2407.02031); every part is a switch of `SwiftdiffConfig`. One thread
serves and owns the weights: it patches them between steps, when no lane computes, and nothing else ever
changes them. Loader threads read files and never touch the model.

With ``bal_k`` 0 and no other approximate switch the pictures are the stock pipeline's up to rounding:
guidance's halves are computed apart, and LoRAs are added to the pristine weights as one sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from swiftdiff.errors import RequestError
from swiftdiff.models.loading import find_dtype, load_pipeline
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import resolve_model
from swiftdiff.pipeline.denoise import Show
from swiftdiff.pipeline.graphs import TracedGraphs
from swiftdiff.pipeline.resident_controlnets import ResidentControlNets
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.systems.bal_bounds import BalBounds, FixedBound, make_bounds
from swiftdiff.systems.base import Exactness, OnStep, Served, Waiting
from swiftdiff.systems.control_image import load_control_images
from swiftdiff.systems.incoming import DEPTH, Incoming, IncomingRequests
from swiftdiff.systems.no_store import no_store
from swiftdiff.systems.served_model import TEXT_ENCODERS, ServedModel
from swiftdiff.systems.service import Service
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import OFF, Timeline


class SwiftdiffSystem:
    """Serves requests one at a time, on several lanes.

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
        # threads than cores and put waiting ones to sleep: all-core work then took 1.6 times as long.
        self._threads_before = torch.get_num_threads()
        num_threads = config.threads or self._threads_before
        pipe = load_pipeline(
            source, device=config.device, dtype=config.dtype, scheduler=config.scheduler, num_threads=1
        )
        self._bounds.check_model({name: getattr(pipe, name) for name in ("unet", *TEXT_ENCODERS)})
        self._model = ServedModel(pipe, switches, num_threads)
        is_exact = self._bounds.exactness == "exact" and self._model.approximations.are_none
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
            tune=switches.tuned_kernels,
            with_shallow_path=self._model.has_step_cache,
        )
        self._incoming = IncomingRequests(self._controlnets, self._loras)
        self._waiting: Waiting = lambda limit: []
        self._timeline: Timeline = OFF
        self._on_step: OnStep | None = None
        self._own_switches: RequestSwitches | None = None
        self._current: Incoming | None = None
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
        """Let a request end that waits for adapters; from any thread, and nothing if it is not served now."""
        current = self._current
        if current is not None and current.request.request_id == request_id:
            for network in current.controlnets:
                network.abandon()
            for lora, _ in current.loras:
                lora.abandon()

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
        timer = StageTimer(self._model.synchronize, self._timeline)
        self._current = incoming = self._incoming.claim(request)
        self._look_ahead()  # now, for this request may have to wait for adapters of its own
        self._in_weights = None
        bound = self._bound_of(request)
        self._service = service = Service(self._model, incoming, bound.k, timer, self._look_ahead)
        with quiet_libraries(), torch.inference_mode():
            with timer.stage("control_image"):
                images = load_control_images(request, images_root)
            prompts = service.encode_first()
            with timer.stage("controlnet_wait"):
                networks = [load.result() for load in incoming.controlnets]
            began = timer.now()
            controls = [
                self._model.control_input(request, index, network, image)
                for index, (network, image) in enumerate(zip(networks, images, strict=True))
            ]
            latents = self._model.denoise(
                request,
                prompts,
                controls,
                service.before_step,
                switches=self._own_switches,
                show=self._show(service, timer),
            )
            _check_finite(latents, request)
            ended = timer.now()
            service.end_steps(ended)
            timer.add("denoise", ended - began - service.between_steps_s)
            self._timeline.add("denoise", began, ended, self._timeline.context)
            pictures = self._decode(latents, timer)
        self._in_weights = request.loras
        records = bound.note_in(incoming.records(service.first_steps.get))
        return Served(pictures, timer.seconds, sum(record.bytes_loaded for record in records), records)

    def finish(self) -> None:
        """Give back the request's adapters; restore the weights unless the next request wants them so."""
        if self._service is not None:
            self._service.close()
            self._service = None
        self._model.synchronize()  # a request that failed may have left work that reads its adapters
        if self._current is not None:
            self._current.release()
            self._current = None
        following = self._waiting(1)
        if self._in_weights is None or not following or following[0].loras != self._in_weights:
            self._model.restore()
            self._in_weights = ()
            self._model.synchronize()

    def close(self) -> None:
        """End threads, give back models and the store's temporary files."""
        if self._current is not None:
            self._current.release()
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

    def _show(self, service: Service, timer: StageTimer) -> Show | None:
        on_step = self._on_step
        if on_step is None:
            return None

        def preview(latents: torch.Tensor) -> list[Image]:
            with timer.stage("preview"):
                began = timer.now()
                pictures = self._model.decode(latents)
                service.between_steps_s += timer.now() - began
                return pictures

        return lambda step, num_steps, latents: on_step(step, num_steps, partial(preview, latents))

    def _look_ahead(self) -> Incoming | None:
        waiting = self._waiting(DEPTH)
        self._incoming.look_ahead(waiting)
        return self._incoming.next_to_encode(waiting)

    def _decode(self, latents: torch.Tensor, timer: StageTimer) -> list[Image] | Callable[[], list[Image]]:
        began = timer.now()
        promise = self._model.begin_decoding(latents)

        def wait() -> list[Image]:
            decoded = promise.result()
            timer.add("vae_decode", timer.now() - began)
            return decoded

        return wait() if self._model.decoder is None else wait


def _check_finite(latents: torch.Tensor, request: ImageRequest) -> None:
    if not torch.isfinite(latents).all():
        raise RequestError(
            f"request {request.request_id}: denoising ended in NaN or infinity, so there is no picture; "
            "look at its adapters, their scales and guidance_scale, or use dtype float32"
        )
