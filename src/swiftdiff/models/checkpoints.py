"""Checks what comes as one file or from the hub before it is loaded, and says what to do about it."""

from __future__ import annotations

from pathlib import Path

from swiftdiff.errors import ModelError
from swiftdiff.models.folders import check_pipeline_index
from swiftdiff.models.integrity import read_safetensors_header
from swiftdiff.models.registry import read_json

SDXL_REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"

# Which prefix of a key tells what a checkpoint is, in the layout of the original code (not diffusers').
_SDXL_BASE_KEY = "conditioner.embedders.1.model."
_OTHER_KINDS = {
    "lora_": "a LoRA, which goes into an adapter store",
    "unet.": "a LoRA or a part in diffusers' layout",
    "cond_stage_model.": "a Stable Diffusion 1 or 2 checkpoint",
    "conditioner.embedders.0.model.": "an SDXL refiner",
    "control_model.": "a ControlNet, which goes into an adapter store",
    "controlnet_": "a ControlNet, which goes into an adapter store",
}


def check_single_file(file: Path) -> None:
    """Check that a safetensors file is an SDXL base checkpoint and whole.

    Raises:
        ModelError: It is something else or damaged.
    """
    keys = read_safetensors_header(file)
    if any(key.startswith(_SDXL_BASE_KEY) for key in keys):
        return
    found = next(
        (what for start, what in _OTHER_KINDS.items() if any(key.startswith(start) for key in keys)), None
    )
    raise ModelError(
        f"{file} is {found or 'of an unknown layout'}, but swiftdiff serves SDXL base checkpoints"
    )


def config_beside(file: Path) -> str | None:
    """Return the diffusers folder named like a checkpoint (``x/`` beside ``x.safetensors``), if any."""
    folder = file.with_suffix("")
    return str(folder) if (folder / "model_index.json").is_file() else None


def fetch_hub_index(name: str) -> None:
    """Fetch only the ``model_index.json`` of a hub id: a wrong model fails before gigabytes are loaded.

    Raises:
        ModelError: There is no network and no copy, no such repository, or it is no SDXL.
    """
    from huggingface_hub import hf_hub_download

    try:
        index = hf_hub_download(name, "model_index.json")
    except (
        Exception
    ) as error:  # many kinds: no network, offline mode, no such repository, gated, no such file
        raise ModelError(
            f"model {name} is no folder here, and its model_index.json cannot be had from the model hub "
            f"({cause(error)}). Check the name and the network, or name a diffusers folder, "
            "a .safetensors file, or the embedded model shapes, which need none"
        ) from error
    check_pipeline_index(read_json(Path(index)), name)


def cause(error: Exception) -> str:
    """Return what an exception of a library says, in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
