"""Decides the weights of untrained models: seeded, well scaled, the same in any order, exact in fp16."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

import torch
from torch import nn

# How strongly a layer answers, relative to keeping the variance of its input. Layers that end a residual
# branch are weaker, so that the sum over SDXL's depth stays near one. The first pattern that is found in a
# name counts.
TEXT_ENCODER_GAINS = {r"(out_proj|fc2)\.": 0.3}
UNET_GAINS = {r"^conv_out\.": 1.6, r"(\.conv2|to_out\.0|ff\.net\.2|proj_out)\.": 0.5}
# A ControlNet's picture passes eight layers that each halve it, and is then added to far larger latents.
CONTROLNET_GAINS = {
    r"^controlnet_(down|mid)": 0.3,
    r"cond_embedding\.conv_out": 15.0,
    r"cond_embedding": 1.7,
    **UNET_GAINS,
}
# Untrained denoising ends with latents far outside a trained model's range; the decoder's first layer brings
# them back.
VAE_GAINS = {r"^decoder\.conv_in\.": 0.01, r"^decoder\.conv_out\.": 0.6, r"(\.conv2|to_out\.0)\.": 0.5}

_NORM_SPREAD = 0.05
_EMBEDDING_SPREAD = {"position_embedding": 0.3}


def fill_random(module: nn.Module, *, seed: int, component: str, gains: Mapping[str, float]) -> None:
    """Fill every parameter of ``module`` in place.

    Each parameter has a generator of its own, seeded by seed, component and name, so neither the order of
    layers nor what else is built changes it. A generator lives on the parameter's device: the same seed
    gives other weights on a GPU than on a CPU. All values are representable in half precision, so a copy
    saved as fp16 is equal.

    Args:
        module: On its final device (not ``meta``).
        seed: Any integer.
        component: Name that sets modules of one pipeline apart, such as ``unet``.
        gains: Gain by regular expression, searched in the parameter's name; 1 otherwise.
    """
    kinds = {
        f"{prefix}.{name}" if prefix else name: child
        for prefix, child in module.named_modules()
        for name, _ in child.named_parameters(recurse=False)
    }
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator(parameter.device)
            generator.manual_seed(zlib.crc32(f"{seed}/{component}/{name}".encode()))
            mean, spread = _moments(kinds[name], name, parameter, gains)
            values = torch.empty(parameter.shape, dtype=torch.float32, device=parameter.device)
            parameter.copy_(values.normal_(mean, spread, generator=generator).to(torch.float16))


def restore_buffers(module: nn.Module) -> None:
    """Recompute the buffers that ``to_empty`` leaves undefined: the position ids of CLIP's embeddings."""
    for child in module.modules():
        ids = getattr(child, "position_ids", None)
        if isinstance(ids, torch.Tensor):
            child.position_ids = torch.arange(ids.shape[-1], device=ids.device).expand(ids.shape)


def _moments(
    layer: nn.Module, name: str, parameter: torch.Tensor, gains: Mapping[str, float]
) -> tuple[float, float]:
    if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
        return (1.0 if name.endswith("weight") else 0.0), _NORM_SPREAD
    if isinstance(layer, nn.Embedding):
        return 0.0, next((std for part, std in _EMBEDDING_SPREAD.items() if part in name), 1.0)
    gain = next((gain for pattern, gain in gains.items() if re.search(pattern, name)), 1.0)
    if parameter.ndim < 2:
        return 0.0, gain * _NORM_SPREAD
    return 0.0, gain / math.sqrt(math.prod(parameter.shape[1:]))
