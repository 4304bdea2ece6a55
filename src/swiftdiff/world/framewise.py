"""Decodes by single frames where an autoencoder's kernels hold nothing but zeros for earlier frames.

Stock's causal convolutions look at two frames of the past. An autoencoder that was trained on single
pictures, as bounce's, has zeros there: a frame's pixels depend on its latents alone, and 2D convolutions
compute them, of all frames at once, up to the rounding of sums. Whether that is so is read from the weights.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from weakref import WeakKeyDictionary

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample, unpatchify
from torch import Tensor, nn
from torch.nn import functional as F

from swiftdiff.world.tracing import Graph, trace

_MAX_GRAPHS = 8  # one for each size of block


def looks_back(part: nn.Module) -> bool:
    """Tell whether what a part of an autoencoder makes of a frame depends on earlier ones."""
    for layer in part.modules():
        if isinstance(layer, WanResample) and layer.mode in ("upsample3d", "downsample3d"):
            return True
        if isinstance(layer, WanCausalConv3d) and bool(layer.weight[:, :, :-1].any()):
            return True
    return False


def convolve(layer: WanCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """Do as the layer, which does not look back, for single frames [N, C, 1, H, W]."""
    left, _, top, *_ = layer._padding
    return F.conv2d(x[:, :, 0], layer.weight[:, :, -1], layer.bias, layer.stride[1:], (top, left)).unsqueeze(
        2
    )


class FramewiseDecoder:
    """An autoencoder's decoder for any number of frames at once; it remembers nothing, and threads share it.

    On a CPU it runs as traced graphs.

    Args:
        vae: Its decoder does not look back. Its weights, which are shared, must not change.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._decode = _Frames(vae)
        self._is_traced = vae.device.type == "cpu"
        self._graphs: dict[tuple[torch.Size, torch.dtype], Graph] = {}
        self._lock = threading.Lock()  # so that two threads do not trace the same graph

    def parameters(self) -> Iterator[Tensor]:
        """Return the weights, which are the autoencoder's own."""
        return self._decode.parameters()

    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels from -1 to 1, [B, 3, F, height, width].

        Args:
            latents: As the autoencoder has them, [B, C, F, H, W].
        """
        if not self._is_traced:
            pixels: Tensor = self._decode(latents)
            return pixels
        key = (latents.shape, latents.dtype)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._trace(key, latents)
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return graph(latents)

    def _trace(self, key: tuple[torch.Size, torch.dtype], latents: Tensor) -> Graph:
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that become constants, and of TorchScript's age
            if key not in self._graphs:
                if len(self._graphs) >= _MAX_GRAPHS:
                    del self._graphs[next(iter(self._graphs))]
                self._graphs[key] = trace(self._decode, (latents,))
            return self._graphs[key]


class _Frames(nn.Module):
    """Stock's decoder on frames as a batch."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self._patch_size = vae.config.patch_size
        shared = {id(weight): weight for weight in vae.parameters()}
        # Copies, so that the stock model stays stock: another thread may be using it.
        self.post_quant_conv, self.decoder = copy.deepcopy((vae.post_quant_conv, vae.decoder), shared)
        for layer in self.modules():
            if isinstance(layer, WanCausalConv3d):
                layer.forward = partial(convolve, layer)

    @torch.no_grad()
    def forward(self, latents: Tensor) -> Tensor:
        batch, _, frames = latents.shape[:3]
        flat = latents.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        pixels: Tensor = self.decoder(self.post_quant_conv(flat), first_chunk=True)
        if self._patch_size is not None:
            pixels = unpatchify(pixels, patch_size=self._patch_size)
        clips = pixels.reshape(batch, frames, *pixels.shape[1:2], *pixels.shape[3:]).transpose(1, 2)
        return clips.clamp(-1.0, 1.0)


_decoders: WeakKeyDictionary[AutoencoderKLWan, FramewiseDecoder | None] = WeakKeyDictionary()
_making = threading.Lock()


def framewise_decoder(vae: AutoencoderKLWan) -> FramewiseDecoder | None:
    """Return an autoencoder's one decoder by frames, or None if it looks back."""
    with _making:
        if vae not in _decoders:
            is_framewise = not looks_back(vae.decoder) and not looks_back(vae.post_quant_conv)
            _decoders[vae] = FramewiseDecoder(vae) if is_framewise else None
        return _decoders[vae]
