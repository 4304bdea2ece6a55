"""Owns ControlNet folders that say how their random weights are made, in place of holding gigabytes.

A recipe is a diffusers folder whose safetensors file has no tensors, only names in its metadata. Who loads it
makes the weights where that is quickest: on the first GPU, if there is one. As with `fill_random`, GPUs and
CPUs make other weights of one recipe.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.models.presets import build_preset_controlnet

if TYPE_CHECKING:
    import torch
    from diffusers import ControlNetModel

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_KEY = "swiftdiff_recipe"


@dataclass(frozen=True)
class Recipe:
    """How a preset's ControlNet is made; see `build_preset_controlnet`."""

    preset: str
    controlnet: str
    seed: int

    def build(self, *, device: torch.device | str, dtype: torch.dtype) -> ControlNetModel:
        """Make the ControlNet.

        Args:
            device: Where it shall be.
            dtype: Type of its weights.

        Raises:
            ModelError: There is no such preset.
        """
        import torch

        maker = torch.device(device)
        if maker.type == "cpu" and torch.cuda.is_available():
            maker = torch.device("cuda", 0)
        built = build_preset_controlnet(self.preset, self.controlnet, self.seed, device=maker, dtype=dtype)
        moved: ControlNetModel = built.to(device)
        return moved


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a ControlNet's folder without its weights.

    Raises:
        ModelError: There is no such preset.
        StorageError: The folder cannot be written.
    """
    from safetensors.torch import save_file

    config = build_preset_controlnet(recipe.preset, recipe.controlnet, device="meta")
    try:
        config.save_config(folder)
        save_file({}, folder / _WEIGHTS, metadata={_KEY: json.dumps(asdict(recipe), sort_keys=True)})
    except Exception as error:  # safetensors raises its own kinds for a full disk
        raise StorageError(f"cannot write {folder}: {error}") from error


def read_recipe(folder: Path) -> Recipe | None:
    """Return how a ControlNet's folder says that it is made; None if it holds weights.

    Args:
        folder: One that `check_controlnet_folder` accepts.

    Raises:
        ModelError: It is a recipe that cannot be read.
    """
    from safetensors import safe_open

    path = folder / _WEIGHTS
    if not path.is_file():  # sharded, or a variant
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        return None
    try:
        values = json.loads(text)
        return Recipe(str(values["preset"]), str(values["controlnet"]), int(values["seed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is a recipe that cannot be read: {error!r}") from error
