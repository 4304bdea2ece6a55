"""Writes LoRA files that stock ``load_lora_weights`` reads, in diffusers' and in kohya's key format.

Both were checked weight by weight against stock diffusers 0.42: what is fused is alpha / rank · up @ down.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors.torch import save_file

from swiftdiff.errors import AdapterError, StorageError
from swiftdiff.models.kohya_names import kohya_unet_name
from swiftdiff.models.saving import FILE_MODE

LoraFormat = Literal["diffusers", "kohya"]
Layers = Mapping[str, "LoraLayer"]

_Number = TypeVar("_Number", int, float)
_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
_KOHYA_PREFIX = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
_TEXT_MODEL = "text_model."


@dataclass(frozen=True)
class LoraLayer:
    """The low-rank change of one linear or convolution layer.

    Attributes:
        down: ``[rank, in_features]``, or ``[rank, in_channels, height, width]`` for a convolution.
        up: ``[out_features, rank]``, or ``[out_channels, rank, 1, 1]``.
        alpha: The change is alpha / rank · up @ down; None is alpha = rank, a scale of 1.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        """Number of rows of ``down``."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """What ``up @ down`` is multiplied with."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def delta(self) -> torch.Tensor:
        """Return the change of the weight, in the weight's shape."""
        return self.scale * torch.einsum("or,r...->o...", self.up.flatten(1), self.down)


def save_lora(
    path: Path | str,
    unet_layers: Layers | None = None,
    text_encoder_layers: Layers | None = None,
    text_encoder_2_layers: Layers | None = None,
    *,
    fmt: LoraFormat = "diffusers",
    layers_per_block: int = 2,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write one LoRA as safetensors, whole or not at all.

    Layers are keyed by module name in the UNet, such as
    ``mid_block.attentions.0.transformer_blocks.0.attn1.to_q``, and in the text encoders, such as
    ``encoder.layers.0.self_attn.q_proj`` (``text_model.`` before it or not).

    Ranks and alphas may differ from layer to layer. Diffusers' format carries them in the file's metadata
    (``lora_adapter_metadata``). In kohya's format stock diffusers misreads alphas that differ between the
    attention layers, so each component gets one alpha and what differs is multiplied into ``up``.

    Args:
        path: File to write; its folder is made.
        unet_layers: The UNet's part.
        text_encoder_layers: The first text encoder's part.
        text_encoder_2_layers: The second text encoder's part.
        fmt: Key format; kohya's uses the UNet names of SDXL's original code (``input_blocks_4_1_…``).
        layers_per_block: Of the UNet's config; kohya's block numbers depend on it.
        dtype: Type of the stored weights.

    Raises:
        AdapterError: There are no layers, shapes do not fit together, or a value is not finite in ``dtype``.
        StorageError: The file cannot be written.
    """
    given = (unet_layers, text_encoder_layers, text_encoder_2_layers)
    parts = {
        name: _full_names(name, layers) for name, layers in zip(_COMPONENTS, given, strict=True) if layers
    }
    if not parts:
        raise AdapterError(f"LoRA {path} has no layers")
    for component, layers in parts.items():
        for module, layer in layers.items():
            _check(component, module, layer)
    metadata = {"format": "pt"}
    if fmt == "kohya":
        tensors = _kohya_tensors(parts, layers_per_block)
    else:
        tensors = _diffusers_tensors(parts)
        if any(layer.scale != 1.0 for layers in parts.values() for layer in layers.values()):
            metadata["lora_adapter_metadata"] = json.dumps(_adapter_metadata(parts), sort_keys=True)
    stored = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    for key, tensor in stored.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"LoRA {path}: {key} has values that are not finite as {dtype}")
    _write(Path(path), stored, metadata)


def _full_names(component: str, layers: Layers) -> dict[str, LoraLayer]:
    if component == "unet":
        return dict(layers)
    # transformers 5 dropped `text_model.` from the first encoder's names; files keep it, and stock readers
    # want it
    return {_TEXT_MODEL + name.removeprefix(_TEXT_MODEL): layer for name, layer in layers.items()}


def _check(component: str, module: str, layer: LoraLayer) -> None:
    convolution = layer.down.ndim == 4
    fits = layer.up.ndim == layer.down.ndim and layer.up.shape[1] == layer.rank
    if layer.down.ndim not in (2, 4) or not fits or (convolution and layer.up.shape[2:] != (1, 1)):
        down, up = list(layer.down.shape), list(layer.up.shape)
        raise AdapterError(f"LoRA layer {component}.{module}: down {down} and up {up} do not fit together")


def _diffusers_tensors(parts: Mapping[str, Layers]) -> dict[str, torch.Tensor]:
    tensors = {}
    for component, layers in parts.items():
        for module, layer in layers.items():
            tensors[f"{component}.{module}.lora_A.weight"] = layer.down
            tensors[f"{component}.{module}.lora_B.weight"] = layer.up
    return tensors


def _adapter_metadata(parts: Mapping[str, Layers]) -> dict[str, object]:
    """Return PEFT's LoraConfig of each component, as ``save_lora_weights`` writes it since diffusers 0.34."""
    metadata: dict[str, object] = {}
    for component, layers in parts.items():
        # text-encoder modules are matched by their ends, since transformers versions name the beginnings
        # differently
        names = {module: module.removeprefix(_TEXT_MODEL) for module in layers}
        start = "^" if component == "unet" else ""
        ranks = {names[module]: layer.rank for module, layer in layers.items()}
        alphas = {names[module]: layer.scale * layer.rank for module, layer in layers.items()}
        rank, alpha = _most_common(ranks), _most_common(alphas)
        metadata[f"{component}.r"] = rank
        metadata[f"{component}.lora_alpha"] = alpha
        metadata[f"{component}.target_modules"] = sorted(names.values())
        metadata[f"{component}.rank_pattern"] = {start + m: r for m, r in ranks.items() if r != rank}
        metadata[f"{component}.alpha_pattern"] = {start + m: a for m, a in alphas.items() if a != alpha}
    return metadata


def _kohya_tensors(parts: Mapping[str, Layers], layers_per_block: int) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for component, layers in parts.items():
        alphas = {module: layer.scale * layer.rank for module, layer in layers.items()}
        alpha = _most_common({module: alpha for module, alpha in alphas.items() if alpha} or {"": 1.0})
        for module, layer in layers.items():
            name = kohya_unet_name(module, layers_per_block) if component == "unet" else module
            key = _KOHYA_PREFIX[component] + name.replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = layer.down
            tensors[f"{key}.lora_up.weight"] = layer.up * (alphas[module] / alpha)
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    return tensors


def _most_common(values: Mapping[str, _Number]) -> _Number:
    return Counter(values.values()).most_common(1)[0][0]


def _write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(FILE_MODE)
        temporary.replace(path)
    except Exception as error:  # safetensors raises its own kinds for a full disk
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write LoRA {path}: {error}") from error
