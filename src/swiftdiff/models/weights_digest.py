"""Decides whether two models have the same weights, wherever they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def weights_digest(modules: Mapping[str, torch.nn.Module]) -> str:
    """Return a SHA-256 over the parameters' names, shapes and values.

    Values count in float16, as models are shipped: what was loaded in float16 and in float32 is the same.

    Args:
        modules: By name; LoRAs must not be in them.
    """
    digest = hashlib.sha256()
    for name in sorted(modules):
        for key, value in sorted(modules[name].named_parameters()):
            digest.update(f"{name}.{key}{tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float16).numpy().tobytes())
    return digest.hexdigest()
