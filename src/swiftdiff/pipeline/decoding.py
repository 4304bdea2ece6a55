"""Turns denoised latents into pictures, number for number as the stock SDXL pipeline does."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image

from swiftdiff.telemetry.timeline import spanned


def prepare_vae(pipe: Any) -> None:
    """Give the VAE the type that stock would give it for every request and take back after each."""
    if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
        pipe.vae.to(torch.float32)


@spanned("vae_decode")
def decode(pipe: Any, latents: torch.Tensor) -> list[Image]:
    """Return the pictures of latents.

    Args:
        pipe: A `StableDiffusionXLPipeline` that went through `prepare_vae`.
        latents: As denoising leaves them, [pictures, channels, height, width].
    """
    vae = pipe.vae
    latents = latents.to(device=vae.device, dtype=vae.dtype)
    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and std is not None:
        latents = latents * _by_channel(std, latents) / vae.config.scaling_factor + _by_channel(mean, latents)
    else:
        latents = latents / vae.config.scaling_factor
    with torch.inference_mode():
        pixels = vae.decode(latents, return_dict=False)[0]
        if pipe.watermark is not None:
            pixels = pipe.watermark.apply_watermark(pixels)
        pictures: list[Image] = pipe.image_processor.postprocess(pixels, output_type="pil")
    return pictures


def _by_channel(values: Any, latents: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1)
