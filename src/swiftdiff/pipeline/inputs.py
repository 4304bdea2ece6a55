"""Makes what denoising needs from a stock SDXL pipeline's parts, number for number as the pipeline does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL.Image import Image

from swiftdiff.pipeline.schedule import Schedule
from swiftdiff.pipeline.split_unet import Prompt


def has_guidance(pipe: Any, guidance_scale: float) -> bool:
    """Tell whether the stock pipeline would compute both halves of guidance."""
    return guidance_scale > 1 and pipe.unet.config.time_cond_proj_dim is None


def encode_prompts(
    pipe: Any,
    prompt: str,
    negative_prompt: str | None,
    *,
    guidance_scale: float,
    num_images: int,
    width: int,
    height: int,
) -> tuple[Prompt, Prompt | None]:
    """Return the encoded prompt and negative prompt, a row a picture; the latter is None without guidance.

    Args:
        pipe: A `StableDiffusionXLPipeline`.
        prompt: What the pictures show.
        negative_prompt: What they should not show; None is the model's own empty conditioning.
        guidance_scale: At most 1 turns guidance off.
        num_images: Pictures of the request.
        width: Pixels.
        height: Pixels.
    """
    guided = has_guidance(pipe, guidance_scale)
    with torch.inference_mode():
        embeddings, negative, pooled, negative_pooled = pipe.encode_prompt(
            prompt,
            num_images_per_prompt=num_images,
            do_classifier_free_guidance=guided,
            negative_prompt=negative_prompt,
        )
        size = (height, width)
        time_ids = pipe._get_add_time_ids(
            size, (0, 0), size, embeddings.dtype, pipe.text_encoder_2.config.projection_dim
        )
        time_ids = time_ids.to(embeddings.device).repeat(num_images, 1)
    positive = Prompt(embeddings, pooled, time_ids)
    return positive, Prompt(negative, negative_pooled, time_ids) if guided else None


def draw_latents(
    pipe: Any, schedule: Schedule, generators: Sequence[torch.Generator], *, width: int, height: int
) -> torch.Tensor:
    """Return the noise that a request begins with, [pictures, channels, height / 8, width / 8].

    Args:
        pipe: A `StableDiffusionXLPipeline`.
        schedule: The request's own.
        generators: One a picture, on the CPU, so that devices agree.
        width: Pixels.
        height: Pixels.
    """
    factor = pipe.vae_scale_factor
    unet = pipe.unet
    shape = (len(generators), unet.config.in_channels, height // factor, width // factor)
    noise: torch.Tensor = randn_tensor(
        shape, generator=list(generators), device=unet.device, dtype=unet.dtype
    )
    return noise * schedule.init_noise_sigma


def prepare_control_image(pipe: Any, image: Image, *, width: int, height: int) -> torch.Tensor:
    """Return a control image as ControlNets read it, resized: [1, 3, height, width] from 0 to 1."""
    processor = VaeImageProcessor(
        vae_scale_factor=pipe.vae_scale_factor, do_convert_rgb=True, do_normalize=False
    )
    pixels: torch.Tensor = processor.preprocess(image, height=height, width=width)
    # Contiguous, as stock's copies for a batch are: convolutions round differently in other memory formats.
    return pixels.contiguous().to(device=pipe.unet.device, dtype=pipe.unet.dtype)
