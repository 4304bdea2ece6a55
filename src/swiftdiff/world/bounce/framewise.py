"""Runs bounce's autoencoder frame by frame with plain 2D convolutions, which is what its weights amount to.

Stock's causal convolutions look at two frames of the past, through kernel slices that are zero in bounce
(`architecture.build_autoencoder`). Left out, training and judging take a third of the time. This is
differentiable and encodes too; what the engine decodes with is `swiftdiff.world.framewise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor

from swiftdiff.errors import ModelError
from swiftdiff.world.decoding import unstandardise
from swiftdiff.world.framewise import convolve, looks_back

_FRAMES_AT_ONCE = 256


@contextmanager
def framewise(vae: AutoencoderKLWan) -> Iterator[None]:
    """Let the autoencoder's causal convolutions compute one frame each, [N, C, 1, H, W], inside the block.

    Raises:
        ModelError: A kernel looks at the past, so that results would differ.
    """
    if looks_back(vae):
        raise ModelError("this autoencoder looks at earlier frames: it is not bounce's")
    layers = [layer for layer in vae.modules() if isinstance(layer, WanCausalConv3d)]
    for layer in layers:
        layer.forward = partial(convolve, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def encode_frames(vae: AutoencoderKLWan, pictures: Tensor) -> Tensor:
    """Return latents as the autoencoder has them, [N, C, 1, h, w], of pictures [N, 3, 1, H, W] from -1 to 1.

    To be called inside `framewise`; differentiable.
    """
    latents: Tensor = vae.quant_conv(vae.encoder(pictures)).chunk(2, dim=1)[0]
    return latents


def decode_frames(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Return pictures [N, 3, 1, H, W], not clamped, of the autoencoder's latents [N, C, 1, h, w].

    To be called inside `framewise`; differentiable.
    """
    pictures: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return pictures


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, pictures: Tensor) -> Tensor:
    """Return standardised latents [N, C, F, h, w] of clips [N, 3, F, H, W] from -1 to 1."""
    number, _, frames = pictures.shape[:3]
    flat = pictures.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    with framewise(vae):
        encoded = torch.cat([encode_frames(vae, part) for part in torch.split(flat, _FRAMES_AT_ONCE)])
    mean, deviation = (
        torch.tensor(values, device=pictures.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return _as_clips((encoded - mean) / deviation, number, frames).contiguous()


@torch.no_grad()
def decode_clips(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Return pictures from -1 to 1, [N, 3, F, H, W], of standardised latents [N, C, F, h, w]."""
    number, _, frames = latents.shape[:3]
    flat = unstandardise(latents, vae).transpose(1, 2).flatten(0, 1).unsqueeze(2)
    with framewise(vae):
        decoded = torch.cat([decode_frames(vae, part) for part in torch.split(flat, _FRAMES_AT_ONCE)])
    return _as_clips(decoded, number, frames).clamp(-1, 1)


def _as_clips(flat: Tensor, number: int, frames: int) -> Tensor:
    return flat.reshape(number, frames, -1, *flat.shape[3:]).transpose(1, 2)
