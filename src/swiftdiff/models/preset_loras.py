"""Decides what the random LoRAs of a preset's family change: targets, ranks, alphas, key formats."""

from __future__ import annotations

import math
import re
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from swiftdiff.models.lora_files import LoraFormat, LoraLayer, save_lora
from swiftdiff.models.presets import Preset, build_preset

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTENTION = re.compile(r"\.attn[12]\.to_(q|k|v|out\.0)$")  # what every trainer targets: 560 layers in SDXL
# What kohya's trainer targets besides by default: 722 layers in SDXL with the attention's.
_TRANSFORMER = re.compile(r"\.ff\.net\.(0\.proj|2)$|attentions\.\d+\.proj_(in|out)$")
_CONVOLUTIONS = re.compile(r"\.resnets\.\d+\.conv[12]$|\.(down|up)samplers\.0\.conv$")
_TEXT = re.compile(r"self_attn\.(q|k|v|out)_proj$|mlp\.fc[12]$")
_reading_layers = threading.Lock()
_STRENGTH = 0.3  # of a LoRA's change, relative to the weight


@dataclass(frozen=True)
class LoraPlan:
    """What one random LoRA is like.

    Attributes:
        rank: Of the attention layers; convolutions get half of it.
        alpha: Scale times rank; None is alpha = rank.
        fmt: Key format of the file.
        transformers: Whether it changes all linear layers of the transformers, not the attention's alone.
        convolutions: Whether it changes convolutions too.
        text_encoders: Whether it changes the text encoders too.
    """

    rank: int = 8
    alpha: float | None = None
    fmt: LoraFormat = "diffusers"
    transformers: bool = False
    convolutions: bool = False
    text_encoders: bool = False


_PLANS = (
    LoraPlan(rank=8),
    LoraPlan(rank=16, alpha=8, fmt="kohya"),
    LoraPlan(rank=4, alpha=8, text_encoders=True),
    LoraPlan(rank=32, alpha=16, fmt="kohya", convolutions=True),
    LoraPlan(rank=16),
    LoraPlan(rank=8, alpha=1, fmt="kohya", text_encoders=True),
    LoraPlan(rank=32, convolutions=True),
    LoraPlan(rank=4, alpha=4, fmt="kohya", convolutions=True, text_encoders=True),
)

# As LoRAs for SDXL are published: to be measured with, so all of one size.
_LARGE_PLANS = (
    LoraPlan(rank=64, alpha=32, fmt="kohya", transformers=True),
    LoraPlan(rank=64, transformers=True),
)


def preset_lora_plan(preset: Preset, count: int) -> dict[str, LoraPlan]:
    """Return the plans of the first ``count`` LoRAs of a preset's family by id.

    Those of a small preset differ in all that LoRAs can differ in, every eighth is alike. Those of a large
    one have rank 64 in every linear layer of the UNet's transformers, and kohya's keys or diffusers'.
    """
    plans = _LARGE_PLANS if preset.is_large else _PLANS
    ids = [*preset.loras, *(f"style-{number}" for number in range(len(preset.loras) + 1, count + 1))]
    return {lora_id: plans[index % len(plans)] for index, lora_id in enumerate(ids[:count])}


def write_preset_lora(path: Path, name: str, *, lora_id: str, plan: LoraPlan, seed: int = 0) -> None:
    """Write a random LoRA that fits a preset; the same arguments give the same file.

    Args:
        path: Safetensors file to write.
        name: Preset, ``sdxl-thin`` or ``sdxl``.
        lora_id: Any name; each gives other weights.
        plan: What it changes.
        seed: Any integer.

    Raises:
        ModelError: There is no preset of that name.
        StorageError: The file cannot be written.
    """
    layers: dict[str, dict[str, LoraLayer]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    for component, module, shape in lora_targets(name, plan):
        generator = torch.Generator().manual_seed(
            zlib.crc32(f"{seed}/{lora_id}/{component}/{module}".encode())
        )
        rank, alpha = plan.rank, plan.alpha
        if len(shape) == 4:
            rank, alpha = max(1, rank // 2), None if alpha is None else alpha / 2
        scale = 1.0 if alpha is None else alpha / rank
        down = torch.randn(rank, *shape[1:], generator=generator) / math.sqrt(math.prod(shape[1:]))
        up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator)
        layers[component][module] = LoraLayer(down, up * (_STRENGTH / scale / math.sqrt(rank)), alpha)
    save_lora(path, layers["unet"], layers["text_encoder"], layers["text_encoder_2"], fmt=plan.fmt)


def lora_targets(name: str, plan: LoraPlan) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield component, module and weight's shape of each layer of a preset that a plan's LoRA changes."""
    patterns = [
        _ATTENTION,
        *([_TRANSFORMER] if plan.transformers else []),
        *([_CONVOLUTIONS] if plan.convolutions else []),
    ]
    for component, module, shape in _layer_shapes(name):
        if component != "unet":
            wanted = plan.text_encoders and bool(_TEXT.search(module))
        else:
            wanted = any(pattern.search(module) for pattern in patterns)
        if wanted:
            yield component, module, shape


def _layer_shapes(name: str) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    with _reading_layers:  # several LoRAs are written at once: the first one builds the model for all
        return _read_layer_shapes(name)


@lru_cache(maxsize=2)
def _read_layer_shapes(name: str) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    pipeline = build_preset(name, device="meta")
    return tuple(
        (component, module, tuple(layer.weight.shape))
        for component in ("unet", "text_encoder", "text_encoder_2")
        for module, layer in getattr(pipeline, component).named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    )
