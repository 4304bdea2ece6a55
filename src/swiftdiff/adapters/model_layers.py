"""Owns which layers of a model a LoRA can change, and by which names its files may call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from swiftdiff.adapters.lora_keys import flat_name
from swiftdiff.errors import AdapterError
from swiftdiff.models.kohya_names import kohya_unet_name


class Target(NamedTuple):
    """One layer of a model.

    Attributes:
        component: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        module: The layer's name in the component, with dots.
    """

    component: str
    module: str

    def __str__(self) -> str:
        return f"{self.component}.{self.module}"


@dataclass(frozen=True, eq=False)
class ModelLayers:
    """Names and shapes of a model's linear and convolution layers.

    It holds no weight and never changes, so that loader threads may read it while the model computes.

    Attributes:
        shapes: The shape of each layer's weight.
        names: Target by component and flat name; diffusers' and the original SDXL's names both.
    """

    shapes: Mapping[Target, tuple[int, ...]]
    names: Mapping[tuple[str, str], Target]

    @classmethod
    def of(cls, components: Mapping[str, nn.Module]) -> ModelLayers:
        """List the layers of a model.

        Args:
            components: UNet and text encoders by their names in a pipeline; the UNet's config may have
                ``layers_per_block``, which the original names depend on.
        """
        shapes: dict[Target, tuple[int, ...]] = {}
        names: dict[tuple[str, str], Target] = {}
        for component, model in components.items():
            per_block = getattr(getattr(model, "config", None), "layers_per_block", 2)
            for module, layer in model.named_modules():
                if not isinstance(layer, nn.Linear | nn.Conv2d):
                    continue
                target = Target(component, module)
                shapes[target] = tuple(layer.weight.shape)
                names[component, flat_name(component, module)] = target
                if component == "unet" and isinstance(per_block, int):
                    original = _original_name(module, per_block)
                    if original is not None:
                        names.setdefault((component, original), target)
        return cls(shapes, names)


def _original_name(module: str, layers_per_block: int) -> str | None:
    try:
        return kohya_unet_name(module, layers_per_block).replace(".", "_")
    except AdapterError:
        return None
