"""Writes models as fp16 folders that stock ``from_pretrained`` loads without being told a dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from swiftdiff.errors import StorageError
from swiftdiff.models.quiet import quiet_libraries

FILE_MODE = 0o644  # safetensors makes files that only their owner can read, and adapter stores are shared

if TYPE_CHECKING:
    from diffusers import ControlNetModel, StableDiffusionXLPipeline


def save_half(model: StableDiffusionXLPipeline | ControlNetModel, folder: Path) -> None:
    """Write a pipeline or ControlNet as a diffusers folder with fp16 weights; ``model`` is not changed.

    Transformers 5 loads a text encoder in the dtype its config names, diffusers loads a UNet as float32: a
    pipeline saved in half precision comes back mixed and fails at its first step. So the configs say
    float32, whatever the files hold; who wants half precision asks for it with ``dtype=``.

    Args:
        model: Anything of diffusers with ``save_pretrained``.
        folder: Made if missing.

    Raises:
        StorageError: The folder cannot be written.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    try:
        with quiet_libraries():
            model.save_pretrained(folder, safe_serialization=True)
        for file in folder.rglob("*.safetensors"):
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
            if any(tensor.dtype == torch.float32 for tensor in tensors.values()):
                half = {
                    key: value.half() if value.is_floating_point() else value
                    for key, value in tensors.items()
                }
                save_file(half, file, metadata=metadata)
            file.chmod(FILE_MODE)
        for config in folder.glob("text_encoder*/config.json"):
            content = json.loads(config.read_text(encoding="utf-8"))
            content["dtype"] = "float32"
            config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except Exception as error:  # safetensors raises its own kinds for a full disk
        raise StorageError(f"cannot write model {folder}: {error}") from error
