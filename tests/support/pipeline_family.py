"""Runs one request through the stock SDXL pipelines, and makes the denoise job of the same request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image

from swiftdiff.models.loading import make_scheduler
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.pipeline.graphs import ReplayKind
from swiftdiff.pipeline.inputs import draw_latents, encode_prompts, prepare_control_image
from swiftdiff.pipeline.job import ControlInput, DenoiseJob
from swiftdiff.pipeline.networks import ServedControlNet, SplitUNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.schedule import Schedule

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A request, as both sides are told."""

    controlnets: int = 0
    guidance_scale: float = 5.0
    scheduler: str = "euler"
    num_images: int = 1
    size: tuple[int, int] = (64, 64)  # width, height
    steps: int = 4
    prompt: str = "a red cat"
    negative_prompt: str | None = "dog"
    scales: tuple[float, ...] = (0.8, 1.0, 0.5)
    starts: tuple[float, ...] = (0.0, 0.0, 0.0)
    ends: tuple[float, ...] = (1.0, 1.0, 1.0)

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)


class Family:
    """A base model with three ControlNets, run by stock pipelines and made into jobs for ours."""

    def __init__(self, base: StableDiffusionXLPipeline, controlnets: Sequence[ControlNetModel]) -> None:
        self.base = base
        self.controlnets = list(controlnets)
        base.set_progress_bar_config(disable=True)

    def images(self, case: Case) -> list[Image.Image]:
        rng = np.random.default_rng(7)
        width, height = case.size
        sides = [(height, width), (50, 70), (height, width)]  # one must be resized
        return [
            Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8))
            for side in sides[: case.controlnets]
        ]

    def stock_latents(self, case: Case, callback: Callable[..., Any] | None = None) -> torch.Tensor:
        components = dict(self.base.components)
        components["scheduler"] = make_scheduler(case.scheduler, self.base.scheduler.config)
        control: dict[str, Any] = {}
        count = case.controlnets
        with quiet_libraries():
            if count:
                pipe = StableDiffusionXLControlNetPipeline(
                    **components,
                    controlnet=self.controlnets[0] if count == 1 else self.controlnets[:count],
                    add_watermarker=False,
                )
                one = count == 1
                control = {
                    "image": self.images(case)[0] if one else self.images(case),
                    "controlnet_conditioning_scale": case.scales[0] if one else list(case.scales[:count]),
                    "control_guidance_start": list(case.starts[:count]),
                    "control_guidance_end": list(case.ends[:count]),
                }
            else:
                pipe = StableDiffusionXLPipeline(**components, add_watermarker=False)
            pipe.set_progress_bar_config(disable=True)
            latents: torch.Tensor = pipe(
                prompt=case.prompt,
                negative_prompt=case.negative_prompt,
                width=case.size[0],
                height=case.size[1],
                num_inference_steps=case.steps,
                guidance_scale=case.guidance_scale,
                num_images_per_prompt=case.num_images,
                generator=[torch.Generator("cpu").manual_seed(5 + i) for i in range(case.num_images)],
                output_type="latent",
                callback_on_step_end=callback,
                **control,
            ).images
        return latents

    def unets(self, replay: ReplayKind = "eager", *, shallow: bool = False) -> Replicas[SplitUNet]:
        return Replicas("the UNet", {CPU: SplitUNet(self.base.unet, replay, with_shallow_path=shallow)})

    def job(self, case: Case, replay: ReplayKind = "eager", *, shallow: bool = False) -> DenoiseJob:
        width, height = case.size
        scheduler = make_scheduler(case.scheduler, self.base.scheduler.config)
        schedule = Schedule(scheduler, case.steps, CPU)
        prompt, negative = encode_prompts(
            self.base,
            case.prompt,
            case.negative_prompt,
            guidance_scale=case.guidance_scale,
            num_images=case.num_images,
            width=width,
            height=height,
        )
        generators = [torch.Generator("cpu").manual_seed(5 + i) for i in range(case.num_images)]
        controls = [
            ControlInput(
                Replicas(
                    f"ControlNet {index}",
                    {CPU: ServedControlNet(self.controlnets[index], replay, with_shallow_path=shallow)},
                ),
                prepare_control_image(self.base, image, width=width, height=height),
                case.scales[index],
                case.starts[index],
                case.ends[index],
            )
            for index, image in enumerate(self.images(case))
        ]
        return DenoiseJob(
            latents=draw_latents(self.base, schedule, generators, width=width, height=height),
            schedule=schedule,
            prompt=prompt,
            negative_prompt=negative,
            guidance_scale=case.guidance_scale,
            controlnets=tuple(controls),
        )
