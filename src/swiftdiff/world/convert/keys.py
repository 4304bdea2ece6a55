"""Decides what a weight of the original Wan code is called in diffusers, and which model its shapes make.

Self-Forcing and CausVid train the original Wan transformer, whose layers they leave as they are: the names
differ by the wrappers of training only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from swiftdiff.errors import ModelError

Shape = tuple[int, ...]

HEAD_DIM: Final = 128  # of every published Wan; shapes do not tell it

_WRAPPERS = frozenset({"_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"})
_HOLDERS = ("model", "module", "generator", "diffusion_model")  # objects that hold the transformer

_MODULES: Final[dict[str, str]] = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
# Below blocks.N. The original's third norm is the second in order of computation, where diffusers has it.
_BLOCK_MODULES: Final[dict[str, str]] = {
    **{
        f"{theirs}.{part}": f"{ours}.{name}"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part, name in (
            ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"),
            ("norm_q", "norm_q"), ("norm_k", "norm_k"),
        )
    },
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}  # fmt: skip
_MODULATION = "modulation"  # the original's name of what diffusers calls scale_shift_table
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_OTHER_MODELS = {
    "img_emb.": "an image-to-video model of Wan",
    "vace_": "a VACE model of Wan",
    "motion_encoder.": "an animation model of Wan",
    "decoder.middle.": "Wan's autoencoder, not its transformer",
    "double_blocks.": "a Hunyuan or Flux transformer",
    "conditioner.": "a Stable Diffusion XL checkpoint",
    "condition_embedder.": "in diffusers' layout already",
    "lora_": "a LoRA",
}


def strip_wrappers(key: str) -> str:
    """Return a key without the names that training's wrappers put into it.

    ``model._fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.ffn.0.bias`` is ``blocks.0.ffn.0.bias``.
    """
    parts = [part for part in key.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] in _HOLDERS:
        parts = parts[1:]
    return ".".join(parts)


def diffusers_key(key: str) -> str | None:
    """Return what a weight of the original Wan transformer is called in diffusers' one; None if unknown.

    Args:
        key: Without wrappers; see `strip_wrappers`.
    """
    block = _BLOCK.fullmatch(key)
    if block is not None:
        prefix, name, modules = f"blocks.{block[1]}.", block[2], _BLOCK_MODULES
    elif key == f"head.{_MODULATION}":
        return "scale_shift_table"
    else:
        prefix, name, modules = "", key, _MODULES
    if block is not None and name == _MODULATION:
        return f"{prefix}scale_shift_table"
    module, _, kind = name.rpartition(".")
    return f"{prefix}{modules[module]}.{kind}" if module in modules and kind in ("weight", "bias") else None


def map_keys(keys: Iterable[str], where: str) -> dict[str, str]:
    """Return for each weight's name in diffusers the name that it has in a checkpoint.

    Args:
        keys: The checkpoint's, wrappers and all.
        where: The checkpoint, for messages.

    Raises:
        ModelError: One is no weight of the Wan transformer, or two are the same.
    """
    found: dict[str, str] = {}
    for key in keys:
        stripped = strip_wrappers(key)
        name = diffusers_key(stripped)
        if name is None:
            raise ModelError(f"{where} holds {key!r}, {_what_it_is(stripped)}")
        if name in found:
            raise ModelError(f"{where} holds {found[name]!r} and {key!r}, which are the same weight")
        found[name] = key
    if not found:
        raise ModelError(f"{where} holds no weights")
    return found


def infer_config(shapes: Mapping[str, Shape], where: str, head_dim: int = HEAD_DIM) -> dict[str, Any]:
    """Return the arguments of diffusers' ``WanTransformer3DModel`` that give weights of these shapes.

    Args:
        shapes: By name in diffusers.
        where: The checkpoint, for messages.
        head_dim: Width of a head.

    Raises:
        ModelError: A weight that tells the sizes is missing, or has a shape that no such model gives; or the
            head's width is odd.
    """
    blocks = {int(match[1]) for name in shapes if (match := _BLOCK.fullmatch(name))}
    patch = _shape(shapes, "patch_embedding.weight", 5, where)
    width, patch_size = patch[0], patch[2:]
    if head_dim % 2:
        raise ModelError.for_field("head_dim", head_dim, "even: positions turn channels in pairs")
    if width % head_dim:
        raise ModelError(
            f"{where}: its width of {width} is no multiple of {head_dim}, the width of a head (--head-dim)"
        )
    return {
        "patch_size": patch_size,
        "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim,
        "in_channels": patch[1],
        "out_channels": _shape(shapes, "proj_out.weight", 2, where)[0] // math.prod(patch_size),
        "text_dim": _shape(shapes, "condition_embedder.text_embedder.linear_1.weight", 2, where)[1],
        "freq_dim": _shape(shapes, "condition_embedder.time_embedder.linear_1.weight", 2, where)[1],
        "ffn_dim": _shape(shapes, "blocks.0.ffn.net.0.proj.weight", 2, where)[0],
        "num_layers": max(blocks) + 1,
        "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
    }


def check_shapes(found: Mapping[str, Shape], needed: Mapping[str, Shape], where: str) -> None:
    """Check that a checkpoint holds every weight of a model in its shape, and nothing else.

    Args:
        found: The checkpoint's, by name in diffusers.
        needed: The model's.
        where: The checkpoint, for messages.

    Raises:
        ModelError: It does not; the message names the first weight.
    """
    missing, foreign = needed.keys() - found.keys(), found.keys() - needed.keys()
    if missing:
        count = len(missing)
        lost = "is missing" if count == 1 else f"and {count - 1} more weights are missing"
        raise ModelError(f"{where} is not whole: {min(missing)} {lost}")
    if foreign:
        raise ModelError(f"{where} holds weights that its other sizes leave no place for: {min(foreign)}")
    wrong = [name for name in sorted(needed) if found[name] != needed[name]]
    if wrong:
        name = wrong[0]
        raise ModelError(f"{where}: {name} has shape {found[name]}, but must have {needed[name]}")


def _what_it_is(key: str) -> str:
    kind = next((what for start, what in _OTHER_MODELS.items() if key.startswith(start)), None)
    if kind is None and ".k_img." in key:
        kind = _OTHER_MODELS["img_emb."]
    if kind is None:
        return "which is no weight of the original Wan transformer"
    return f"so it is {kind}; what can be converted is a text-to-video transformer in the original's layout"


def _shape(shapes: Mapping[str, Shape], name: str, dimensions: int, where: str) -> Shape:
    if name not in shapes:
        raise ModelError(f"{where} is not whole: it has no {name}")
    if len(shapes[name]) != dimensions:
        raise ModelError(f"{where}: {name} has shape {shapes[name]}, but must have {dimensions} dimensions")
    return shapes[name]
