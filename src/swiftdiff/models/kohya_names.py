"""Names a UNet's layers as SDXL's original code does, and so do kohya's trainer and its LoRA files."""

from __future__ import annotations

from swiftdiff.errors import AdapterError

_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
    "time_emb_proj": "emb_layers.1",
}


def kohya_unet_name(module: str, layers_per_block: int = 2) -> str:
    """Return the original name of a diffusers UNet module, dotted.

    Right for SDXL's block types (a down block without attention, then blocks with it; up blocks in reverse)
    with any ``layers_per_block``: stock diffusers reads the numbers back with the UNet's own config.

    Args:
        module: Such as ``down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q``.
        layers_per_block: Of the UNet's config; SDXL has 2.

    Raises:
        AdapterError: The name is not a layer of such a UNet.
    """
    if module in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[module]
    try:
        block, rest = _block_name(module.split("."), layers_per_block)
        return ".".join([block, *rest])
    except (ValueError, IndexError, KeyError):
        raise AdapterError(
            f"{module!r} is no layer of an SDXL UNet that kohya's format has a name for"
        ) from None


def _block_name(parts: list[str], layers_per_block: int) -> tuple[str, list[str]]:
    if parts[0] == "mid_block":
        kind, index, rest = parts[1], int(parts[2]), parts[3:]
        block = "middle_block." + {"attentions": "1", "resnets": str(2 * index)}[kind]
        return block, _inner(kind, rest)
    level, kind, index, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    first = level * (layers_per_block + 1)
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first + layers_per_block + 1}.0", ["op", *rest[1:]]
        return f"input_blocks.{first + index + 1}." + _slot(kind), _inner(kind, rest)
    if parts[0] != "up_blocks":
        raise ValueError(parts[0])
    if kind == "upsamplers":
        return f"output_blocks.{first + layers_per_block}.2", rest
    return f"output_blocks.{first + index}." + _slot(kind), _inner(kind, rest)


def _slot(kind: str) -> str:
    return {"resnets": "0", "attentions": "1"}[kind]


def _inner(kind: str, rest: list[str]) -> list[str]:
    return [_IN_RESNET[rest[0]], *rest[1:]] if kind == "resnets" else rest
