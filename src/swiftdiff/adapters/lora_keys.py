"""Decides what a key of a LoRA file means: which component, which layer, which part of its change.

Three spellings are read, the ones that stock ``load_lora_weights`` reads for SDXL:

=========================  =====================================================================
PEFT and diffusers         ``unet.mid_block.….to_q.lora_A.weight``, ``text_encoder.….lora_B.weight``
diffusers before PEFT      ``unet.….attn1.processor.to_q_lora.down.weight``, ``….lora.up.weight``
kohya                      ``lora_unet_input_blocks_4_1_….lora_down.weight``, ``lora_te1_….alpha``
=========================  =====================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["down", "up", "alpha", "magnitude", "ignored"]

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")

_KOHYA = re.compile(r"lora_(unet|te|te1|te2)_([^.]+)\.(.+)")
_KOHYA_COMPONENTS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
# Stock diffusers drops `dora_scale` with a warning and uses the rest as a plain LoRA; so do we.
_KOHYA_PARTS: dict[str, Part] = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "alpha": "alpha",
    "dora_scale": "ignored",
}
_DIFFUSERS = re.compile(r"(unet|text_encoder|text_encoder_2)\.(?:base_model\.model\.)?(.+)")
_DIFFUSERS_PARTS: dict[str, Part] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    ".alpha": "alpha",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".dora_scale": "ignored",
}
_OLD_PROJECTION = re.compile(r"\.to_(q|k|v|out)_lora\.(down|up)\.weight$")


@dataclass(frozen=True)
class LayerKey:
    """What one key says.

    Attributes:
        component: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        layer: The layer's flat name, as `flat_name` gives it.
        part: Which tensor of the layer; ``ignored`` is one that stock diffusers drops.
        dotted: The layer's name with its dots, None where the file has none.
    """

    component: str
    layer: str
    part: Part
    dotted: str | None


def flat_name(component: str, module: str) -> str:
    """Return a layer's name without dots, the same for every spelling of it.

    Kohya's files have no dots. Files say ``text_model.`` before text-encoder layers, which transformers 5
    dropped from the first encoder's modules.
    """
    flat = module.replace(".", "_")
    return flat if component == "unet" else flat.removeprefix("text_model_")


def parse_key(key: str) -> LayerKey | None:
    """Return what a key means, None if it is not a LoRA's."""
    if match := _KOHYA.fullmatch(key):
        component = _KOHYA_COMPONENTS[match[1]]
        part = _KOHYA_PARTS.get(match[3])
        return part and LayerKey(component, flat_name(component, match[2]), part, None)
    if not (match := _DIFFUSERS.fullmatch(key)):
        return None
    component, rest = match[1], match[2].replace(".processor.", ".")
    if old := _OLD_PROJECTION.search(rest):
        layer = rest[: old.start()] + _projection(component, old[1])
        return LayerKey(component, flat_name(component, layer), "down" if old[2] == "down" else "up", layer)
    for suffix, part in _DIFFUSERS_PARTS.items():
        if rest.endswith(suffix):
            layer = rest.removesuffix(suffix)
            return LayerKey(component, flat_name(component, layer), part, layer)
    return None


def _projection(component: str, name: str) -> str:
    if component == "unet":
        return ".to_out.0" if name == "out" else f".to_{name}"
    return f".{name}_proj"
