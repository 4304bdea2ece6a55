"""Decides whether a LoRA file is sound before any of it reaches a model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from swiftdiff.errors import AdapterError


def check_lora_file(path: Path, adapter_id: str) -> None:
    """Read a LoRA once and refuse what would damage the base model.

    Stock diffusers fuses a NaN into the base weights, where subtracting it again leaves NaN for every later
    request (diffusers issue 5604); so every tensor must be finite. The read also brings the file into the
    page cache, where the loader that follows finds it.

    Args:
        path: A safetensors file. Pickles are never opened.
        adapter_id: How errors name the LoRA.

    Raises:
        AdapterError: It is truncated or no safetensors file, holds no tensor, or holds NaN or infinity.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            keys = list(file.keys())
            broken = next((key for key in keys if not _is_finite(file.get_tensor(key))), None)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise AdapterError(
            f"LoRA {adapter_id!r} cannot be read: {path.name} is truncated or no safetensors file ({error})"
        ) from error
    if not keys:
        raise AdapterError(f"LoRA {adapter_id!r} is empty: {path.name} holds no tensor")
    if broken is not None:
        raise AdapterError(f"LoRA {adapter_id!r} is damaged: {broken} in {path.name} holds NaN or infinity")


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
