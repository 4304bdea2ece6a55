"""Owns how latents become pixels while a clip is made: the autoencoder's decoder goes on where it stopped.

Stock ``AutoencoderKLWan.decode`` takes a whole clip, one latent frame after the other, and keeps what each
causal convolution saw last in a list that it clears at the end. Here the list outlives a call, and belongs to
the clip: so clips do not disturb each other, and what comes out is, bit for bit, what stock gives for the
whole clip. For an autoencoder that looks at no earlier frame nothing need be kept, and `framewise` computes
the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from numpy.typing import NDArray

from swiftdiff.world.framewise import framewise_decoder

Frames = NDArray[np.uint8]


class StreamingDecoder:
    """Decodes one clip, block by block.

    Args:
        vae: Shared; only read. Its weights must not change.

    Attributes:
        vae: As it was given.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.vae = vae
        self._framewise = framewise_decoder(vae)
        num_convolutions = sum(isinstance(part, WanCausalConv3d) for part in vae.decoder.modules())
        self._seen: list[Any] = [None] * num_convolutions
        self._is_first = True

    @property
    def num_bytes(self) -> int:
        """What is kept between calls takes; it does not grow with the clip."""
        return sum(part.nbytes for part in self._seen if isinstance(part, torch.Tensor))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the pixels of the clip's next latent frames.

        Args:
            latents: As the autoencoder has them, [B, C, F, H, W]; see `unstandardise`.

        Returns:
            From -1 to 1, [B, 3, frames, height, width]. An autoencoder that shortens time gives one frame
            for the clip's first latent frame and several for each further one.
        """
        if self._framewise is not None:
            return self._framewise.decode(latents)
        # On a copy, so that a failure changes nothing: layers put new tensors into the list and change none.
        seen, is_first = list(self._seen), self._is_first
        features = self.vae.post_quant_conv(latents)
        decoded = []
        for index in range(features.shape[2]):
            frame = features[:, :, index : index + 1]
            decoded.append(self.vae.decoder(frame, feat_cache=seen, feat_idx=[0], first_chunk=is_first))
            is_first = False
        pixels = torch.cat(decoded, dim=2)
        if self.vae.config.patch_size is not None:
            pixels = unpatchify(pixels, patch_size=self.vae.config.patch_size)
        self._seen, self._is_first = seen, is_first
        return pixels.clamp(-1.0, 1.0)


def unstandardise(latents: torch.Tensor, vae: AutoencoderKLWan) -> torch.Tensor:
    """Return latents as the autoencoder has them, from those that the transformer has, as stock Wan does.

    Args:
        latents: [B, C, F, H, W].
        vae: Its config has the mean and standard deviation of each channel.
    """
    mean, std = (
        _per_channel(values, latents) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents / (1.0 / std) + mean).to(vae.dtype)


def to_frames(pixels: torch.Tensor) -> Frames:
    """Return pictures as bytes in host memory, [frames, height, width, 3].

    Args:
        pixels: One clip's, from -1 to 1, [1, 3, frames, height, width].
    """
    scaled = (pixels[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    frames: Frames = scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return frames


def _per_channel(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
