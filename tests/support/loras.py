"""Builds tiny models and random LoRAs for tests of what patches them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from swiftdiff.adapters.delta_plan import DeltaPlan, build_plan
from swiftdiff.adapters.lora_reading import read_lora
from swiftdiff.adapters.model_layers import ModelLayers
from swiftdiff.models.lora_files import LoraLayer


class TinyModel(nn.Module):
    """Three linear layers, two of them alike, and a convolution."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 6)
        self.third = nn.Linear(6, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(x).mean((2, 3))
        out: torch.Tensor = self.third(torch.relu(self.second(torch.relu(self.first(hidden)))))
        return out


TINY_LAYERS = ("conv", "first", "second", "third")


def random_layer(
    weight: torch.Tensor, rank: int, alpha: float | None, generator: torch.Generator, strength: float = 1.0
) -> LoraLayer:
    shape = weight.shape
    down = torch.randn(rank, *shape[1:], generator=generator)
    up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) * strength
    return LoraLayer(down, up, alpha)


def random_layers(
    model: nn.Module, modules: Iterable[str], *, rank: int = 2, alpha: float | None = None, seed: int = 0
) -> dict[str, LoraLayer]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: random_layer(model.get_submodule(name).weight, rank, alpha, generator)  # type: ignore[arg-type]
        for name in modules
    }


def write_lora(
    path: Path,
    layers: Mapping[str, LoraLayer],
    *,
    component: str = "unet",
    magnitudes: Mapping[str, torch.Tensor] | None = None,
    extra: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write PEFT's keys, alphas as tensors beside them, without any of the checks that `save_lora` does."""
    tensors: dict[str, torch.Tensor] = dict(extra or {})
    for name, layer in layers.items():
        tensors[f"{component}.{name}.lora_A.weight"] = layer.down
        tensors[f"{component}.{name}.lora_B.weight"] = layer.up
        if layer.alpha is not None:
            tensors[f"{component}.{name}.alpha"] = torch.tensor(layer.alpha)
    for name, magnitude in (magnitudes or {}).items():
        tensors[f"{component}.{name}.lora_magnitude_vector"] = magnitude
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
    return path


def tiny_plan(
    folder: Path, model: nn.Module, adapter_id: str = "x", *, seed: int = 0, rank: int = 2
) -> DeltaPlan:
    """A plan that changes every layer of a `TinyModel`."""
    layers = random_layers(model, TINY_LAYERS, seed=seed, rank=rank, alpha=1.5)
    path = write_lora(folder / f"{adapter_id}.safetensors", layers)
    return build_plan(read_lora(path, adapter_id), ModelLayers.of({"unet": model}))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_identical(model: nn.Module, saved: Mapping[str, torch.Tensor]) -> bool:
    """Whether all bits of a model's weights are those of a snapshot, signs of zeros too."""

    def bits(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])

    return all(torch.equal(bits(value), bits(saved[name])) for name, value in model.state_dict().items())
