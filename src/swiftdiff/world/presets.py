"""Owns worlds of random weights: real shapes and real work, and pictures that mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import swiftdiff
from swiftdiff.models.integrity import MANIFEST_NAME

if TYPE_CHECKING:
    import torch

    from swiftdiff.world.loading import WorldModel

BOUNCE_RANDOM: Final = "bounce-random"
PRESETS: Final = (BOUNCE_RANDOM,)
_BOUNCE: Final = "bounce"


def default_world() -> str:
    """Return what is measured if no model is named: bounce where it is installed, else its random preset."""
    folder = Path(swiftdiff.__file__).parent / "data" / _BOUNCE
    return _BOUNCE if (folder / MANIFEST_NAME).is_file() else BOUNCE_RANDOM


def build_bounce_random(
    seed: int = 0, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> WorldModel:
    """Build a world of bounce's architecture and prompts that was never trained.

    Layers that training would have to open are open: with the zeros that training begins with, no block
    would see its past.

    Args:
        seed: Chooses the weights.
        device: Where they go; they are made on the CPU.
        dtype: Of the weights; None is float32.
    """
    import torch
    from torch import nn

    from swiftdiff.models.quiet import quiet_libraries
    from swiftdiff.world.bounce.architecture import build_autoencoder, build_transformer
    from swiftdiff.world.bounce.prompts import BouncePrompts
    from swiftdiff.world.bounce.recipe import bounce_settings
    from swiftdiff.world.causal import CausalWan
    from swiftdiff.world.loading import WorldModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer, vae = build_transformer(), build_autoencoder()
        for layer in (transformer.proj_out, transformer.condition_embedder.time_proj):
            nn.init.xavier_uniform_(layer.weight)
    with quiet_libraries():  # diffusers warns of layers that it would keep in float32 when it loads them
        for module in (transformer, vae):
            module.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
    causal = CausalWan(transformer, fast=transformer.device.type == "cpu")  # as `load_world` has it
    return WorldModel(BOUNCE_RANDOM, causal, vae, BouncePrompts(), bounce_settings())
