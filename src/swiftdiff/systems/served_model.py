"""Owns a base model as the engine serves it: its weights, the lanes that compute, and who patches what."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import ControlNetModel
from PIL.Image import Image

from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.adapters.patcher import WeightPatcher
from swiftdiff.config import SwiftdiffConfig
from swiftdiff.models.loading import find_dtype
from swiftdiff.pipeline.acceleration import Acceleration
from swiftdiff.pipeline.approximations import Approximations
from swiftdiff.pipeline.cuda_graphs import CudaGraphs
from swiftdiff.pipeline.decoding import decode, prepare_vae
from swiftdiff.pipeline.denoise import BeforeStep, Denoiser, Show
from swiftdiff.pipeline.graphs import ReplayKind, TracedGraphs
from swiftdiff.pipeline.inputs import draw_latents, encode_prompts, prepare_control_image
from swiftdiff.pipeline.job import ControlInput, DenoiseJob
from swiftdiff.pipeline.kernels import tuned
from swiftdiff.pipeline.lane import Lane, LaneFuture, synchronize
from swiftdiff.pipeline.networks import ServedControlNet, SplitUNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.schedule import Schedule
from swiftdiff.pipeline.split_unet import Prompt
from swiftdiff.pipeline.workplace import Workplace
from swiftdiff.request import ImageRequest
from swiftdiff.systems.switches import RequestSwitches
from swiftdiff.telemetry.timeline import OFF, Timeline, spanned

Prompts = tuple[Prompt, Prompt | None]

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_COMPILER = "inductor"
_GRAPHS: dict[str, ReplayKind] = {"cpu": "traced", "cuda": "cuda_graph"}


class ServedModel:
    """A stock SDXL pipeline's parts on lanes.

    Weights are changed by `patchers` alone, and these are called by one thread, between steps.

    Args:
        pipe: The pipeline; it belongs to this object from now on.
        switches: What is switched on.
        num_threads: Of all CPU lanes together.

    Attributes:
        layers: What LoRAs may change.
        patchers: One for the UNet on each device, and one for the text encoders.
        native_side: Of a picture when a request names no size, in pixels.
        approximations: What denoising leaves out.
        acceleration: What networks are made of.

    Raises:
        ModelError: The model cannot be split, or its weights have a type that cannot be patched.
        ConfigError: A lane is not a device of this machine, or weights cannot be quantized here.
    """

    def __init__(self, pipe: Any, switches: SwiftdiffConfig, num_threads: int) -> None:
        self._timeline: Timeline = OFF
        self._pipe = pipe
        self._switches = switches
        self.approximations = Approximations(
            switches.controlnet_reuse, switches.guidance_interval, switches.step_cache
        )
        self._device: torch.device = pipe.unet.device
        self.native_side = int(pipe.default_sample_size * pipe.vae_scale_factor)
        self.layers = ModelLayers.of(
            {"unet": pipe.unet, **{name: getattr(pipe, name) for name in TEXT_ENCODERS}}
        )
        self._workplace = Workplace(
            switches.lanes,
            self._device,
            num_threads,
            latent_parallelism=switches.latent_parallelism,
            controlnet_offload=switches.controlnet_offload,
        )
        # Prompts are always encoded here: with another number of threads they would be rounded otherwise, and
        # a picture would depend on whether its request had to wait.
        is_cpu = self._device.type == "cpu"
        self._encoder = Lane(str(self._device), max(1, num_threads // 2) if is_cpu else None, "text")
        self.decoder = None if switches.decode_lane is None else Lane(switches.decode_lane, role="decode")
        prepare_vae(
            pipe,
            None if switches.vae_dtype == "auto" else find_dtype(switches.vae_dtype),
            switches.vae_tile_side,
        )
        if self.decoder is not None:
            pipe.vae.to(self.decoder.device)
        if switches.tuned_kernels:
            pipe.vae.decoder = tuned(pipe.vae.decoder, fixed=True)
        self.acceleration = Acceleration(
            tune=switches.tuned_kernels,
            channels_last=switches.channels_last,
            compiled=_COMPILER if switches.compile_blocks else None,
            precision=switches.quantized_weights,
            cuda_graphs=CudaGraphs(max_bytes=int(switches.graph_device_mb * 1e6)),
        )
        unets = {device: self._copy_unet(device) for device in self._workplace.devices}
        halves = {
            device: SplitUNet(
                unet,
                self.replay_kind(device),
                acceleration=self.acceleration,
                with_shallow_path=self.has_step_cache,
            )
            for device, unet in unets.items()
        }
        self._unets = Replicas("the UNet", halves)
        budget_mb = switches.pristine_device_mb
        budget = None if budget_mb is None else int(budget_mb * 1e6)
        self._text_patcher = WeightPatcher(
            {name: getattr(pipe, name) for name in TEXT_ENCODERS}, device_budget_bytes=budget
        )
        unet_patchers = [
            WeightPatcher({"unet": split.unet}, device_budget_bytes=budget, on_change=split.refresh)
            for split in halves.values()
        ]
        self.patchers = (*unet_patchers, self._text_patcher)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Devices of its lanes, each once; a CPU is one, however many lanes share it."""
        decoders = () if self.decoder is None else (self.decoder.device,)
        return tuple(dict.fromkeys((*self._workplace.devices, *decoders)))

    @property
    def network_devices(self) -> tuple[torch.device, ...]:
        """Devices that ControlNets may be computed on."""
        return self._workplace.devices

    @property
    def unet(self) -> Any:
        """The base's UNet, to check adapters against."""
        return self._pipe.unet

    @property
    def has_step_cache(self) -> bool:
        """Tell whether networks need their shallow path too."""
        return self.approximations.step_cache > 1

    @property
    def text_is_pristine(self) -> bool:
        """Tell whether no LoRA is in the text encoders."""
        changed = (plan.components for plan, _ in self._text_patcher.applied)
        return not any(components & set(TEXT_ENCODERS) for components in changed)

    def record_to(self, timeline: Timeline) -> None:
        """Show in a timeline what the lanes do from now on."""
        self._timeline = timeline
        for lane in (*self._workplace.lanes, self._encoder, self.decoder):
            if lane is not None:
                lane.timeline = timeline

    def replay_kind(self, device: torch.device) -> ReplayKind:
        """Return how networks run on a device."""
        kind = _GRAPHS[device.type] if self._switches.graph_replay else "eager"
        return "eager" if kind == "traced" and not self.acceleration.can_be_traced else kind

    def size_of(self, request: ImageRequest) -> tuple[int, int]:
        """Return a request's width and height."""
        return request.width or self.native_side, request.height or self.native_side

    def encode(self, request: ImageRequest) -> LaneFuture[Prompts]:
        """Begin to encode a request's prompts; the text encoders must not be patched until it is done."""
        width, height = self.size_of(request)

        @spanned("text_encode")
        def work() -> Prompts:
            return encode_prompts(
                self._pipe,
                request.prompt,
                request.negative_prompt,
                guidance_scale=request.guidance_scale,
                num_images=request.num_images,
                width=width,
                height=height,
            )

        with self._timeline.about({"request_id": request.request_id}):  # it may be the next one's
            return self._encoder.submit(work)

    def control_input(
        self,
        requests: Sequence[ImageRequest],
        index: int,
        network: Replicas[ServedControlNet],
        images: Sequence[Image],
    ) -> ControlInput:
        """Return a ControlNet that requests share, number ``index`` of each, with an image of each."""
        use = requests[0].controlnets[index]
        width, height = self.size_of(requests[0])
        pixels = [
            prepare_control_image(self._pipe, image, width=width, height=height).repeat(
                request.num_images, 1, 1, 1
            )
            for request, image in zip(requests, images, strict=True)
        ]
        return ControlInput(network, torch.cat(pixels), use.scale, use.start, use.end)

    def denoise(
        self,
        requests: Sequence[ImageRequest],
        prompts: Prompts,
        controls: Sequence[ControlInput],
        before_step: BeforeStep = lambda step: None,
        *,
        approximations: Approximations | None = None,
        switches: RequestSwitches | None = None,
        show: Show | None = None,
    ) -> torch.Tensor:
        """Return the denoised latents of requests that agree (`batch_key`); see `Denoiser.denoise`.

        Args:
            requests: The requests. Each begins with the noise that it has alone.
            prompts: Their prompts, rows in the requests' order.
            controls: Their ControlNets.
            before_step: Called before each step.
            approximations: In place of the model's.
            switches: The requests' own.
            show: Called before that.
        """
        own = switches or RequestSwitches()
        reuse = self._switches.reuse_invariants if own.reuse_invariants is None else own.reuse_invariants
        place = partial(
            self._workplace.place,
            num_controlnets=len(controls),
            latent_parallelism=own.latent_parallelism,
            controlnet_offload=own.controlnet_offload,
        )
        first = requests[0]
        width, height = self.size_of(first)
        seeds = [request.seed + index for request in requests for index in range(request.num_images)]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        schedule = Schedule(self._pipe.scheduler, first.num_inference_steps, self._device, generators)
        latents = draw_latents(self._pipe, schedule, generators, width=width, height=height)
        job = DenoiseJob(latents, schedule, *prompts, first.guidance_scale, tuple(controls))
        denoiser = Denoiser(
            self._unets,
            place(guided=job.is_guided),
            reuse_invariants=reuse,
            approximations=approximations or self.approximations,
            unguided=place(guided=False),
        )
        return denoiser.denoise(job, before_step, show).latents

    def decode(self, latents: torch.Tensor) -> list[Image]:
        """Return the pictures of denoised latents, decoded on the lane for that or by all threads."""
        return self.begin_decoding(latents).result()

    def begin_decoding(self, latents: torch.Tensor) -> LaneFuture[list[Image]]:
        """Begin to decode and return at once."""
        return (self.decoder or self._workplace.widest).submit(decode, self._pipe, latents)

    def warm_up(self, traces: TracedGraphs | None) -> None:
        """Make pictures of few steps on every arrangement of lanes, which captures their graphs.

        Args:
            traces: Where ControlNets' graphs are kept; None if there are no ControlNets to come.
        """
        kept = self.approximations
        # As many as come by every part: the last step is shallow for the UNet and for its ControlNets.
        num_steps = max(2, min(kept.step_cache, kept.controlnet_reuse + 1))
        request = ImageRequest(request_id="warm-up", timestamp=0, prompt="", num_inference_steps=num_steps)
        everywhere = replace(kept, guidance_interval=None)  # few steps may all lie outside it
        with torch.inference_mode():
            # CUDA graphs hold addresses: those of a blank ControlNet would serve no other.
            by_address = all(self.replay_kind(device) == "cuda_graph" for device in self.network_devices)
            blanks = () if traces is None or by_address else ((self._blank_control(traces),),)
            inputs = [(), *blanks]
            for guidance_scale in (5.0, 1.0):
                asked = request.model_copy(update={"guidance_scale": guidance_scale})
                for controls in inputs:
                    prompts = self.encode(asked).result()
                    latents = self.denoise([asked], prompts, controls, approximations=everywhere)
            self.decode(latents)

    def restore(self) -> None:
        """Take all LoRAs out of the weights."""
        for patcher in self.patchers:
            patcher.restore()

    def synchronize(self) -> None:
        """Wait until its devices have done what was queued."""
        for device in self.devices:
            synchronize(device)

    def close(self) -> None:
        """End the lanes' threads."""
        self._workplace.close()
        self._encoder.close()
        if self.decoder is not None:
            self.decoder.close()

    def _copy_unet(self, device: torch.device) -> Any:
        own = self._pipe.unet
        return own if device == self._device else copy.deepcopy(own).to(device)

    def _blank_control(self, traces: TracedGraphs) -> ControlInput:
        halvings = int(self._pipe.vae_scale_factor).bit_length()  # of the control image, to the latents' size
        with self._device:  # on a GPU at once: a core takes many seconds for an SDXL's first weights
            blank = ControlNetModel.from_unet(
                self._pipe.unet, conditioning_embedding_out_channels=(16, 32, 96, 256)[:halvings]
            )
        blank = blank.eval().to(self._pipe.unet.dtype)
        nets = {
            device: ServedControlNet(
                copy.deepcopy(blank).to(device),
                self.replay_kind(device),
                traces,
                acceleration=self.acceleration,
                with_shallow_path=self.has_step_cache,
            )
            for device in self.network_devices
        }
        image = torch.zeros(1, 3, self.native_side, self.native_side, device=self._device)
        return ControlInput(Replicas("a blank ControlNet", nets), image.to(self._pipe.unet.dtype))
