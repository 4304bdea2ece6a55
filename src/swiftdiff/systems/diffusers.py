"""The baseline: stock diffusers, served as a competent engineer would without changing its code.

What diffusers recommends and is on:

- attention through PyTorch's `scaled_dot_product_attention` (diffusers' default on torch 2);
- `torch.inference_mode`, models in `eval`, safetensors only, progress bars and log chatter off;
- one base pipeline for the process; ControlNet pipelines share its components and are made in well under a
  millisecond, with `StableDiffusionXLPipeline` itself where a request has no ControlNet;
- ControlNets stay in memory between requests (LRU, ``max_cached_controlnets``);
- LoRAs by `load_lora_weights`, `set_adapters` and `fuse_lora`, so that denoising pays nothing for them; then
  `unfuse_lora` and `unload_lora_weights` (see `stock_loras` for the rounding this leaves behind);
- both halves of classifier-free guidance in one batch, as the stock pipeline does, and all pictures of a
  request in one batch; a fresh scheduler per request;
- a warm-up picture and PEFT's slow import before anything is measured.

On request: ``channels_last`` (helps convolutions on GPUs) and ``compile`` (minutes to compile, and again
whenever a LoRA changes the modules, so off by default). VAE slicing and tiling trade speed for memory and
stay off.

The pictures are the stock pipeline's bit for bit: each request is one call of it. The prompt is encoded
before that call by its own `encode_prompt`, to be timed apart, and the last step's callback marks where
denoising ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL.Image import Image

from swiftdiff.adapters.store import AdapterStore, FetchedAdapter, open_store
from swiftdiff.config import ServingConfig
from swiftdiff.errors import RequestError
from swiftdiff.models.loading import check_controlnet_fits, load_controlnet, load_pipeline
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import resolve_model
from swiftdiff.pipeline.decoding import decode
from swiftdiff.request import ControlNetUse, ImageRequest
from swiftdiff.systems.base import Exactness, OnStep, Served, Waiting
from swiftdiff.systems.control_image import load_control_images
from swiftdiff.systems.controlnets import ControlNetCache
from swiftdiff.systems.no_store import no_store
from swiftdiff.systems.stock_loras import StockLoras
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import OFF, Timeline

# Called with the number of steps done and the latents after them.
AfterStep = Callable[[int, torch.Tensor], None]


class DiffusersSystem:
    """Serves requests one at a time with stock diffusers pipelines.

    Raises:
        ModelError: The config's model is missing or damaged.
        AdapterError: Its adapter store cannot be opened.
    """

    exactness: Exactness = "exact"
    num_devices = 1

    def __init__(self, config: ServingConfig) -> None:
        self.name = config.name
        self._timeline: Timeline = OFF
        self._on_step: OnStep | None = None
        self._in_service = ("", StageTimer())
        self._config = config
        self._source = resolve_model(config.model)
        self._store = self._open_store()
        self._memory_format = (
            torch.channels_last if config.diffusers.channels_last else torch.contiguous_format
        )
        self._load_base()
        self._controlnets = ControlNetCache(
            self._fetch_controlnet, config.diffusers.max_cached_controlnets, self._load_controlnet
        )

    def warm_up(self) -> None:
        """Make one small picture and import PEFT."""
        import peft  # noqa: F401  (imported for its cost)

        with torch.inference_mode(), quiet_libraries():
            self._base(prompt="", num_inference_steps=2, guidance_scale=5.0, output_type="pil")

    def watch(self, waiting: Waiting) -> None:
        """Nothing: stock diffusers begins with a request when it is served."""

    def attend(self, on_step: OnStep) -> None:
        """Call this before every step but the first; see `ServingSystem.attend`."""
        self._on_step = on_step

    def record_to(self, timeline: Timeline) -> None:
        """Show stages and steps in a timeline; see `ServingSystem.record_to`."""
        self._timeline = timeline

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        """Make a request's pictures; see `ServingSystem.serve`."""
        timer = StageTimer(self._synchronize, self._timeline)
        self._in_service = (request.request_id, timer)
        with quiet_libraries():
            return self._serve(request, images_root, timer)

    def stages_so_far(self, request_id: str) -> dict[str, float]:
        """Return what a request took until now; see `ServingSystem.stages_so_far`."""
        served_id, timer = self._in_service
        return timer.so_far() if served_id == request_id else {}

    def finish(self) -> None:
        """Take the request's LoRAs off; load the base again if they may have spoilt it."""
        try:
            self._loras.detach()
        except Exception:  # a half-removed LoRA must not reach the next request
            self._suspect = True
        if self._suspect:
            self._load_base()

    def close(self) -> None:
        """Give back the models and the store's temporary files."""
        self._controlnets.clear()
        if self._store is not None:
            self._store.close()

    def _serve(self, request: ImageRequest, images_root: Path, timer: StageTimer) -> Served:
        controlnets: list[ControlNetModel] = []
        images: list[Image] = []
        num_bytes = 0
        if request.controlnets:
            with timer.stage("control_image"):
                images = load_control_images(request, images_root)
            with timer.stage("controlnet_load"):
                controlnets, num_bytes = self._get_controlnets(request)
        num_bytes += self._loras.attach(request.loras, self._fetch_lora, timer)
        pipe = self._make_pipe(controlnets)
        with torch.inference_mode():
            arguments = self._encode_prompt(request, timer)
            arguments |= self._control_arguments(request, images)
            pictures = self._make_pictures(pipe, request, arguments, timer)
        return Served(pictures, timer.seconds, num_bytes)

    def _open_store(self) -> AdapterStore | None:
        return open_store(self._config.adapters, self._source.adapter_url)

    def _load_base(self) -> None:
        config = self._config
        self._base: StableDiffusionXLPipeline = load_pipeline(
            self._source,
            device=config.device,
            dtype=config.dtype,
            scheduler=config.scheduler,
            num_threads=config.threads,
        )
        self._base.set_progress_bar_config(disable=True)
        self._base.unet.to(memory_format=self._memory_format)
        if config.diffusers.compile:
            self._base.unet.compile()
        self._loras = StockLoras(self._base, fuse=config.diffusers.fuse_lora)
        self._suspect = False

    def _make_pipe(self, controlnets: list[ControlNetModel]) -> Any:
        """Return a pipeline of the base's components with a scheduler of its own."""
        components = dict(self._base.components)
        components["scheduler"] = type(self._base.scheduler).from_config(self._base.scheduler.config)
        watermark = self._base.watermark is not None
        if not controlnets:
            self._base.scheduler = components["scheduler"]
            return self._base
        pipe = StableDiffusionXLControlNetPipeline(
            **components,
            controlnet=controlnets[0] if len(controlnets) == 1 else controlnets,
            force_zeros_for_empty_prompt=self._base.config.force_zeros_for_empty_prompt,
            add_watermarker=watermark,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _encode_prompt(self, request: ImageRequest, timer: StageTimer) -> dict[str, Any]:
        with timer.stage("text_encode"):
            prompt, negative, pooled, negative_pooled = self._base.encode_prompt(
                request.prompt,
                num_images_per_prompt=1,
                do_classifier_free_guidance=request.guidance_scale > 1
                and self._base.unet.config.time_cond_proj_dim is None,
                negative_prompt=request.negative_prompt,
            )
        return {
            "prompt_embeds": prompt,
            "negative_prompt_embeds": negative,
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative_pooled,
        }

    def _control_arguments(self, request: ImageRequest, images: list[Image]) -> dict[str, Any]:
        if not request.controlnets:
            return {}
        image = images[0] if len(images) == 1 else images
        return {"image": image, **self._control_weights(request.controlnets)}

    def _control_weights(self, uses: Sequence[ControlNetUse]) -> dict[str, Any]:
        scales = [use.scale for use in uses]
        one = len(uses) == 1
        return {
            "controlnet_conditioning_scale": scales[0] if one else scales,
            "control_guidance_start": [use.start for use in uses],
            "control_guidance_end": [use.end for use in uses],
        }

    def _make_pictures(
        self, pipe: Any, request: ImageRequest, arguments: dict[str, Any], timer: StageTimer
    ) -> list[Image]:
        return self._denoise_and_decode(pipe, request, arguments, timer)

    def _denoise_and_decode(
        self,
        pipe: Any,
        request: ImageRequest,
        arguments: dict[str, Any],
        timer: StageTimer,
        after_step: AfterStep = lambda num_done, latents: None,
    ) -> list[Image]:
        native_size = self._base.default_sample_size * self._base.vae_scale_factor
        timeline, about = self._timeline, {"request_id": request.request_id}
        began = timer.now()
        denoised = step_began = began

        def mark_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal denoised, step_began
            timeline.add("step", step_began, ended := timeline.now(), {**about, "step": step})
            step_began = ended
            after_step(step + 1, tensors["latents"])
            if step == pipe.num_timesteps - 1:
                self._check_finite(tensors["latents"], request)
                denoised = timer.now()
                timer.add_span("denoise", began, denoised)
            elif self._on_step is not None:
                latents = tensors["latents"]
                self._on_step(step + 1, pipe.num_timesteps, lambda: decode(self._base, latents))
            return {}

        with timer.under_way("denoise", began):
            pictures: list[Image] = pipe(
                width=request.width or native_size,
                height=request.height or native_size,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                num_images_per_prompt=request.num_images,
                generator=[
                    torch.Generator("cpu").manual_seed(request.seed + i) for i in range(request.num_images)
                ],
                callback_on_step_end=mark_end,
                **arguments,
            ).images
        timer.add_span("vae_decode", denoised, timer.now())
        return pictures

    def _check_finite(self, latents: torch.Tensor, request: ImageRequest) -> None:
        if torch.isfinite(latents).all():
            return
        if request.loras:  # finite LoRAs may still have overflowed the weights that they were added to
            self._suspect = True
        raise RequestError(
            f"request {request.request_id}: denoising ended in NaN or infinity, so there is no picture; "
            "look at its adapters, their scales and guidance_scale, or use dtype float32"
        )

    def _get_controlnets(self, request: ImageRequest) -> tuple[list[ControlNetModel], int]:
        models, total = [], 0
        for use in request.controlnets:
            model, num_bytes = self._controlnets.get(use.id)
            models.append(model)
            total += num_bytes
        return models, total

    def _load_controlnet(self, fetched: FetchedAdapter) -> ControlNetModel:
        config = self._config
        controlnet = load_controlnet(fetched.path, device=config.device, dtype=config.dtype)
        check_controlnet_fits(controlnet, self._base.unet, fetched.id)
        return controlnet.to(memory_format=self._memory_format)

    def _fetch_controlnet(self, adapter_id: str) -> FetchedAdapter:
        return self._need_store("ControlNet", adapter_id).fetch_controlnet(adapter_id)

    def _fetch_lora(self, adapter_id: str) -> FetchedAdapter:
        return self._need_store("LoRA", adapter_id).fetch_lora(adapter_id)

    def _need_store(self, kind: str, adapter_id: str) -> AdapterStore:
        if self._store is None:
            raise no_store(kind, adapter_id, self._source)
        return self._store

    def _synchronize(self) -> None:
        if self._config.device.startswith("cuda"):
            torch.cuda.synchronize(self._config.device)
