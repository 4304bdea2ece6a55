"""Reads a LoRA file into layers that know no model yet, and refuses what is damaged."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swiftdiff.adapters.lora_file import naming_read_errors, read_tensors
from swiftdiff.adapters.lora_keys import LayerKey, Part, parse_key
from swiftdiff.errors import AdapterError
from swiftdiff.models.lora_files import LoraLayer

_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True, eq=False)
class ReadLayer:
    """One layer of a LoRA, as its file has it.

    Attributes:
        component: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        name: The layer's flat name, see `lora_keys.flat_name`.
        key: Key of its down matrix, for errors.
        lora: The matrices, in the file's dtype, and alpha.
        magnitude: DoRA's length of each output row, any shape with as many values; None is a plain LoRA.
    """

    component: str
    name: str
    key: str
    lora: LoraLayer
    magnitude: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """A LoRA file's content.

    Attributes:
        adapter_id: Its id in the store.
        file_name: The file's name, for errors.
        digest: SHA-256 of the file; two files with the same one are the same adapter.
        num_bytes: The file's size.
        layers: Every layer it changes.
        notes: What was left out as stock diffusers leaves it out; empty almost always.
    """

    adapter_id: str
    file_name: str
    digest: str
    num_bytes: int
    layers: tuple[ReadLayer, ...]
    notes: tuple[str, ...] = ()


def read_lora(path: Path, adapter_id: str) -> LoraWeights:
    """Read a LoRA in diffusers', PEFT's or kohya's keys.

    Alphas are read layer by layer, also from kohya files, where stock diffusers 0.42 confuses alphas that
    differ between attention layers.

    Args:
        path: A safetensors file. Pickles are never opened.
        adapter_id: How errors name the LoRA.

    Raises:
        AdapterError: It is truncated or no safetensors file, holds no tensor, NaN or infinity, a key that is
            no LoRA's, or half a layer. The message names file and key.
    """
    with naming_read_errors(path, adapter_id), path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
        num_bytes = raw.tell()
    tensors, metadata = read_tensors(path, adapter_id)
    where = f"in {path.name}"
    _check_types(tensors, adapter_id, where)
    slots, notes = _sort_keys(tensors, adapter_id, where)
    alphas = _MetadataAlphas(metadata.get(_METADATA), adapter_id, where)
    layers = tuple(_layer(parts, tensors, alphas, adapter_id, where) for parts in slots)
    return LoraWeights(adapter_id, path.name, digest, num_bytes, layers, notes)


def _check_types(tensors: Mapping[str, torch.Tensor], adapter_id: str, where: str) -> None:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and not key.endswith(".alpha"):
            raise AdapterError(f"LoRA {adapter_id!r} is damaged: {key} {where} holds {tensor.dtype}")


_Slot = dict[Part, tuple[str, LayerKey]]


def _sort_keys(
    tensors: Mapping[str, torch.Tensor], adapter_id: str, where: str
) -> tuple[list[_Slot], tuple[str, ...]]:
    slots: dict[tuple[str, str], _Slot] = defaultdict(dict)
    ignored = 0
    for key in tensors:
        parsed = parse_key(key)
        if parsed is None:
            raise AdapterError(
                f"LoRA {adapter_id!r}: {key} {where} is no key of a LoRA for SDXL; keys of diffusers, PEFT "
                "(unet.…lora_A.weight) and kohya (lora_unet_….lora_down.weight) are read"
            )
        if parsed.part == "ignored":
            ignored += 1
            continue
        slot = slots[parsed.component, parsed.layer]
        if parsed.part in slot:
            raise AdapterError(
                f"LoRA {adapter_id!r}: {slot[parsed.part][0]} and {key} {where} name the same weights"
            )
        slot[parsed.part] = (key, parsed)
    notes = (f"{ignored} dora_scale keys left out, as stock diffusers does",) if ignored else ()
    return list(slots.values()), notes


def _layer(
    parts: _Slot, tensors: Mapping[str, torch.Tensor], alphas: _MetadataAlphas, adapter_id: str, where: str
) -> ReadLayer:
    some_key, parsed = next(iter(parts.values()))
    for needed in ("down", "up"):
        if needed not in parts:
            raise AdapterError(
                f"LoRA {adapter_id!r} is incomplete: {some_key} {where} has no {needed} matrix beside it"
            )
    key = parts["down"][0]
    down, up = tensors[key], tensors[parts["up"][0]]
    _check_shapes(key, down, up, adapter_id, where)
    rank = int(down.shape[0])
    if "alpha" in parts:
        alpha: float | None = _scalar(tensors[parts["alpha"][0]], parts["alpha"][0], adapter_id, where)
    else:
        alpha = alphas.of(parsed, rank)
    magnitude = tensors[parts["magnitude"][0]] if "magnitude" in parts else None
    if magnitude is not None and magnitude.numel() != up.shape[0]:
        shape = list(magnitude.shape)
        raise AdapterError(
            f"LoRA {adapter_id!r}: {parts['magnitude'][0]} {where} has shape {shape}, but must have "
            f"{up.shape[0]} values"
        )
    return ReadLayer(parsed.component, parsed.layer, key, LoraLayer(down, up, alpha), magnitude)


def _check_shapes(key: str, down: torch.Tensor, up: torch.Tensor, adapter_id: str, where: str) -> None:
    fits = (
        down.ndim in (2, 4)
        and up.ndim == down.ndim
        and down.shape[0] == up.shape[1]
        and down.numel() > 0
        and up.numel() == up.shape[0] * up.shape[1]
    )
    if not fits:
        raise AdapterError(
            f"LoRA {adapter_id!r}: {key} {where} has shape {list(down.shape)}, which does not fit its up "
            f"matrix's {list(up.shape)}"
        )


def _scalar(tensor: torch.Tensor, key: str, adapter_id: str, where: str) -> float:
    if tensor.numel() != 1:
        raise AdapterError(
            f"LoRA {adapter_id!r}: {key} {where} has shape {list(tensor.shape)}, but must be one number"
        )
    return float(tensor)


class _MetadataAlphas:
    """Alphas from PEFT's LoraConfigs, which ``save_lora_weights`` keeps in the file's metadata."""

    def __init__(self, text: str | None, adapter_id: str, where: str) -> None:
        self._problem = f"LoRA {adapter_id!r}: {_METADATA} {where}"
        try:
            self._values: Any = json.loads(text) if text is not None else {}
        except ValueError as error:
            raise AdapterError(f"{self._problem} is not JSON: {error}") from error
        if not isinstance(self._values, dict):
            raise AdapterError(f"{self._problem} is not a JSON object")

    def of(self, layer: LayerKey, rank: int) -> float | None:
        """Return a layer's alpha, None if the metadata say nothing."""
        if f"{layer.component}.lora_alpha" not in self._values:
            return None
        pattern = self._values.get(f"{layer.component}.alpha_pattern") or {}
        name = layer.dotted or layer.layer
        try:
            # as PEFT matches: a pattern is a regular expression for the end of the module's name
            found = next((p for p in pattern if re.match(rf"(.*\.)?({p})$", name)), None)
            alpha = float(self._values[f"{layer.component}.lora_alpha"] if found is None else pattern[found])
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise AdapterError(f"{self._problem} has no usable alpha for {name}: {error}") from error
        if not math.isfinite(alpha):
            raise AdapterError(f"{self._problem} has alpha {alpha} for {name}, but must have a finite number")
        rs_lora = bool(self._values.get(f"{layer.component}.use_rslora"))  # scale is alpha / √rank
        return alpha * math.sqrt(rank) if rs_lora else alpha
