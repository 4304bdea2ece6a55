"""Owns the kernels of cached passes on a CPU: the same arithmetic as stock's by fewer and faster products."""

from __future__ import annotations

from diffusers import WanTransformer3DModel
from torch import nn

from swiftdiff.pipeline.kernels import in_a_row, tuned, twin_of

_MOST_COPIED = 256e6  # bytes of weights; above, products take so long that their layout hardly matters


def faster(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """Return a transformer that computes the same, up to the rounding of sums, from the same weights.

    One product gives a self-attention layer's query, key and value, for which these weights are moved into
    one piece of memory; products are oneDNN's where `tuned` has them. Small models' weights are copied into
    the kernels' layout.

    Args:
        transformer: Stays as it is; its weights will not change.
    """
    twin = twin_of(transformer)
    for attn in (block.attn1 for block in twin.blocks):
        apart = (attn.to_q, attn.to_k, attn.to_v)
        together = nn.Linear(attn.to_q.in_features, 3 * attn.inner_dim, device="meta")
        together.weight = nn.Parameter(in_a_row([layer.weight for layer in apart]), requires_grad=False)
        together.bias = nn.Parameter(in_a_row([layer.bias for layer in apart]), requires_grad=False)
        attn.to_qkv, attn.fused_projections = together, True  # as stock's `fuse_projections`, which copies
        del attn.to_q, attn.to_k, attn.to_v
    return tuned(twin, fixed=sum(weight.nbytes for weight in transformer.parameters()) <= _MOST_COPIED)
