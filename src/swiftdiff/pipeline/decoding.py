"""Turns denoised latents into pictures; unless told otherwise, number for number as the stock pipeline."""

from __future__ import annotations

from typing import Any

import torch
from PIL.Image import Image

from swiftdiff.errors import RequestError
from swiftdiff.telemetry.timeline import spanned


def prepare_vae(pipe: Any, dtype: torch.dtype | None = None, tile_side: int = 0) -> None:
    """Give the VAE the type it decodes in.

    Args:
        pipe: A `StableDiffusionXLPipeline`.
        dtype: The type; None is the one that stock would give it for every request and take back after each:
            SDXL's VAE overflows in float16, says so in its config, and gets float32.
        tile_side: Pixels of the overlapping tiles that larger pictures are decoded in, which takes less
            memory and changes the picture; 0 decodes them whole.
    """
    if dtype is not None:
        pipe.vae.to(dtype)
    elif pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
        pipe.vae.to(torch.float32)
    if tile_side:
        pipe.vae.enable_tiling()
        pipe.vae.tile_sample_min_size = tile_side
        pipe.vae.tile_latent_min_size = max(1, tile_side // pipe.vae_scale_factor)


@spanned("vae_decode")
def decode(pipe: Any, latents: torch.Tensor) -> list[Image]:
    """Return the pictures of latents.

    Args:
        pipe: A `StableDiffusionXLPipeline` that went through `prepare_vae`.
        latents: As denoising leaves them, [pictures, channels, height, width].

    Raises:
        RequestError: The VAE overflowed in float16.
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
        if pixels.dtype == torch.float16 and not torch.isfinite(pixels).all():
            raise RequestError(
                "the VAE overflowed in float16, so there is no picture; set vae_dtype to auto or float32"
            )
        if pipe.watermark is not None:
            pixels = pipe.watermark.apply_watermark(pixels)
        pictures: list[Image] = pipe.image_processor.postprocess(pixels, output_type="pil")
    return pictures


def _by_channel(values: Any, latents: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1)
