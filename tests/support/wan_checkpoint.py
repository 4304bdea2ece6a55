"""Weights in the names and shapes of the original Wan transformer, as its code defines them."""

from __future__ import annotations

import torch


def original_weights(
    *,
    num_layers: int = 2,
    width: int = 48,
    ffn_dim: int = 96,
    text_dim: int = 32,
    freq_dim: int = 32,
    channels: int = 4,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return a text-to-video transformer's weights, random and seeded unless on ``meta``."""
    patch = (1, 2, 2)
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, channels, *patch),
        "patch_embedding.bias": (width,),
        **_linear("text_embedding.0", width, text_dim),
        **_linear("text_embedding.2", width, width),
        **_linear("time_embedding.0", width, freq_dim),
        **_linear("time_embedding.2", width, width),
        **_linear("time_projection.1", 6 * width, width),
        **_linear("head.head", 4 * channels, width),
        "head.modulation": (1, 2, width),
    }
    for layer in range(num_layers):
        block = f"blocks.{layer}"
        shapes[f"{block}.modulation"] = (1, 6, width)
        shapes |= {f"{block}.norm3.weight": (width,), f"{block}.norm3.bias": (width,)}
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                shapes |= _linear(f"{block}.{attention}.{part}", width, width)
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (width,) for part in "qk"}
        shapes |= _linear(f"{block}.ffn.0", ffn_dim, width) | _linear(f"{block}.ffn.2", width, ffn_dim)
    if device == "meta":
        return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) / 8 for key, shape in shapes.items()}


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
