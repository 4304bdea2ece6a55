"""Stage 1, the autoencoder: pictures of the plain world and of every style, weighted towards the objects.

Unweighted, a small autoencoder spends itself on backgrounds and loses the colours of small objects.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from swiftdiff.scenes.render import geometry, render, shade
from swiftdiff.scenes.scene import sample_scene
from swiftdiff.scenes.styles import STYLES

from .trainer import Plan

PLAN = Plan("autoencoder", steps=4000, batch_size=32, learning_rate=1.5e-3, ema_decay=0.998, weight_decay=0.0)
_SIDE = 64
_OBJECT_WEIGHT = 4.0
_KL_WEIGHT = 1e-6
#: share of a batch that is plain; the rest is spread over the styles
_PLAIN_SHARE = 0.5


class AutoencoderTask:
    """Reconstruct crops of rendered pictures: L1 + squared error + image gradients, and a whisper of KL."""

    def __init__(self, autoencoder: AutoencoderKL, device: torch.device) -> None:
        self._autoencoder = autoencoder.to(device)
        self._device = device

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return {"vae": self._autoencoder}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch."""
        pictures, weight = sample_pictures(rng, batch_size)
        target = pictures.to(self._device)
        posterior = self._autoencoder.encode(target).latent_dist
        noise = torch.from_numpy(rng.standard_normal(tuple(posterior.mean.shape), np.float32)).to(
            self._device
        )
        latents = posterior.mean.float() + posterior.std.float() * noise
        output = self._autoencoder.decode(latents).sample.float()
        error = output - target
        weight = weight.to(self._device)
        pixel = (weight * (error.abs() + 2 * error.square())).mean()
        slopes = (error.diff(dim=-1).abs() * weight[..., 1:]).mean() + (
            error.diff(dim=-2).abs() * weight[..., 1:, :]
        ).mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total: Tensor = pixel + 0.5 * slopes + _KL_WEIGHT * kl
        return total


def sample_pictures(rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor]:
    """Fresh training pictures [N, 3, 64, 64] in -1..1 and their loss weights [N, 1, 64, 64].

    Half are whole scenes drawn at 64 pixels, half crops of scenes drawn at 128: both scales will be decoded.
    """
    pictures, weights = [], []
    for side in (64, 128):
        count = number - number // 2 if side == 64 else number // 2
        if count == 0:
            continue
        fields = geometry([sample_scene(rng) for _ in range(count)], side)
        drawn = np.empty((count, side, side, 3), np.float32)
        drawings = [shade, *STYLES.values()]
        choice = np.where(rng.random(count) < _PLAIN_SHARE, 0, rng.integers(1, len(drawings), size=count))
        for index, draw in enumerate(drawings):
            if (chosen := choice == index).any():
                drawn[chosen] = draw(fields.subset(chosen))
        near = np.clip(1.5 - fields.distance.min(1) / (0.03 * side), 0, 1)
        for picture, mask in zip(drawn, near, strict=True):
            x, y = rng.integers(side - _SIDE + 1, size=2)
            pictures.append(picture[y : y + _SIDE, x : x + _SIDE])
            weights.append(mask[y : y + _SIDE, x : x + _SIDE])
    batch = torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(0, 3, 1, 2).clamp(0, 1) * 2 - 1
    near_objects = torch.from_numpy(np.stack(weights).astype(np.float32))[:, None]
    return batch.contiguous(), 1 + _OBJECT_WEIGHT * near_objects


@torch.no_grad()
def standardise(autoencoder: AutoencoderKL, device: torch.device, seed: int = 10_000) -> None:
    """Fold each latent channel's mean and deviation on plain pictures into the 1x1 convolutions around it.

    Afterwards latents have zero mean and unit variance a channel, and the scaling factor is 1. Without this,
    offsets and one loud channel set the scale, the details that make a shape lie far below the noise of most
    timesteps, and the last step of twenty has to draw them all.
    """
    rng = np.random.default_rng(seed)
    pictures = torch.from_numpy(render([sample_scene(rng) for _ in range(64)], 128)).to(device)
    latents = autoencoder.encode(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    encode, decode = autoencoder.quant_conv, autoencoder.post_quant_conv
    channels = len(mean)
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= deviation[None, :, None, None]
    encode.bias[:channels] -= mean
    encode.bias[:channels] /= deviation
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[channels:] -= 2 * deviation.log()  # the log-variances
