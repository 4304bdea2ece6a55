"""Opens LoRA files, and decides whether one is sound before any of it reaches a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

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
    read_tensors(path, adapter_id)


def read_tensors(path: Path, adapter_id: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return a LoRA file's tensors and its metadata.

    Args:
        path: A safetensors file. Pickles are never opened.
        adapter_id: How errors name the LoRA.

    Raises:
        AdapterError: It is truncated or no safetensors file, holds no tensor, or holds NaN or infinity.
    """
    with naming_read_errors(path, adapter_id):
        # From memory: safetensors 0.8 leaks a little for every tensor that it maps from a file, and what is
        # mapped changes when the file does.
        data = path.read_bytes()
        tensors = dict(sorted(safetensors.torch.load(data).items()))  # it has no order of its own
        metadata = _metadata(data)
    if not tensors:
        raise AdapterError(f"LoRA {adapter_id!r} is empty: {path.name} holds no tensor")
    broken = _first_not_finite(tensors)
    if broken is not None:
        raise AdapterError(f"LoRA {adapter_id!r} is damaged: {broken} in {path.name} holds NaN or infinity")
    return tensors, metadata


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    return metadata


@contextmanager
def naming_read_errors(path: Path, adapter_id: str) -> Iterator[None]:
    """Turn whatever reading a file raises into an AdapterError that names it."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise AdapterError(
            f"LoRA {adapter_id!r} cannot be read: {path.name} is truncated or no safetensors file ({error})"
        ) from error


def _first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return a key whose tensor holds NaN or infinity, None if all are finite.

    Tensors of one shape are looked at together, since there are a thousand.
    """
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        alike[tensor.dtype, tuple(tensor.shape)].append(key)
    for keys in alike.values():
        stacked = torch.stack([tensors[key] for key in keys])
        finite = torch.isfinite(stacked if stacked.element_size() > 1 else stacked.float())
        if not bool(finite.all()):
            return keys[int((~finite.reshape(len(keys), -1).all(1)).nonzero()[0])]
    return None
