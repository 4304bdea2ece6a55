"""Stage 4, the LoRAs: one style each, in the ranks, layers and file formats that are met in practice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig
from torch import Tensor, nn

from swiftdiff.models.lora_files import LoraFormat
from swiftdiff.scenes.styles import render_style

from .diffusion import BatchMaker, Family, velocity_loss
from .trainer import Plan

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_out")
_ADAPTER = "default"
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """What a style's LoRA patches, and how its file is written ("diffusers" or "kohya" keys)."""

    style: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    file_format: LoraFormat
    text_encoders: bool = False


_ALL = (*_ATTENTION, *_FEED_FORWARD, *_CONVOLUTIONS)

#: small enough that base, ControlNets and LoRAs together stay below 60 MB
LORA_RECIPES: Final = {
    recipe.style: recipe
    for recipe in (
        LoraRecipe("neon", 4, 4, _ALL, "diffusers"),
        LoraRecipe("watercolour", 8, 4, _ALL, "kohya"),
        LoraRecipe("blueprint", 8, 8, _ALL, "diffusers", text_encoders=True),
        LoraRecipe("pixel", 8, 8, _ALL, "kohya"),
        LoraRecipe("stripes", 8, 16, _ALL, "diffusers"),
        LoraRecipe("gold", 8, 8, (*_ATTENTION, *_FEED_FORWARD), "kohya", text_encoders=True),
        LoraRecipe("sketch", 8, 8, _ALL, "diffusers"),
        LoraRecipe("night", 32, 32, ("to_v", "to_out.0"), "diffusers"),
    )
}


def lora_plans(style: str) -> tuple[tuple[int, Plan], ...]:
    """Small pictures first, then the native size."""
    return (
        (64, Plan(f"lora-{style}-64", 500, 16, learning_rate=2e-3, warmup_steps=20, ema_decay=0.98)),
        (128, Plan(f"lora-{style}-128", 500, 8, learning_rate=2e-3, warmup_steps=20, ema_decay=0.98)),
    )


def add_adapters(family: Family, recipe: LoraRecipe, seed: int) -> None:
    """Put trainable PEFT layers on the frozen base; B starts at zero, so the picture starts unchanged."""
    family.freeze()
    torch.manual_seed(seed)
    family.unet.add_adapter(_config(recipe, recipe.targets), _ADAPTER)
    if recipe.text_encoders:
        for encoder in (family.text_encoder, family.text_encoder_2):
            encoder.add_adapter(_config(recipe, _TEXT), _ADAPTER)


def take_adapters(family: Family, pipeline: StableDiffusionXLPipeline, file: Path) -> None:
    """Put a finished LoRA on the frozen base as stock diffusers reads it, ready to be trained further."""
    family.freeze()
    pipeline.load_lora_weights(file, adapter_name=_ADAPTER)
    for part in family.parts.values():
        for name, parameter in part.named_parameters():
            parameter.requires_grad_("lora_" in name)


def _config(recipe: LoraRecipe, targets: tuple[str, ...]) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(targets), init_lora_weights="gaussian"
    )


class LoraTask:
    """Train the adapters on pictures in the style, captioned as the plain world is."""

    def __init__(self, family: Family, recipe: LoraRecipe, side: int) -> None:
        self._family = family
        self._recipe = recipe
        self._batches = BatchMaker(family, side, draw=partial(render_style, recipe.style))

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return self._family.parts if self._recipe.text_encoders else {"unet": self._family.unet}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch."""
        return velocity_loss(
            self._family.unet, self._batches.make(rng, self._batches.scenes(rng, batch_size))
        )


def layer_weights(module: nn.Module, recipe: LoraRecipe) -> dict[str, tuple[Tensor, Tensor]]:
    """Module path -> (A, B) of every PEFT layer in `module`, for the recipe's alpha, on the CPU, in half."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in module.named_modules():
        if _ADAPTER in getattr(layer, "lora_A", {}):
            rescale = layer.scaling[_ADAPTER] * recipe.rank / recipe.alpha  # a file's alpha may be another
            pair = (layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight * rescale)
            found[name] = (pair[0].detach().cpu().half(), pair[1].detach().cpu().half())
    return found
