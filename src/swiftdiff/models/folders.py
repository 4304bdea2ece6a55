"""Checks a diffusers folder before any library opens it: right pipeline class, all parts there, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swiftdiff.errors import ModelError
from swiftdiff.models.integrity import read_safetensors_header
from swiftdiff.models.registry import read_json

_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
_OTHERS = ("tokenizer", "tokenizer_2", "scheduler")
_LIBRARIES = ("diffusers", "transformers")
_VARIANTS = (None, "fp16")
# Attention layers of autoencoders that were saved before diffusers 0.17, which still reads them.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_INSTEAD = "swiftdiff serves Stable Diffusion XL"


def check_pipeline_folder(folder: Path) -> str | None:
    """Check an SDXL folder and return the variant of its weights: None, or ``fp16``.

    Raises:
        ModelError: It is another pipeline's, or a part is missing or damaged; the message names it.
    """
    check_pipeline_index(read_json(folder / "model_index.json"), str(folder))
    variants = {component: check_weights(folder / component, stem) for component, stem in _WEIGHTS.items()}
    for component in _OTHERS:
        if not (folder / component).is_dir():
            raise ModelError(f"{folder} has no {component}/, which its model_index.json names")
    return "fp16" if "fp16" in variants.values() else None


def check_pipeline_index(index: dict[str, Any], where: str) -> None:
    """Check the content of a ``model_index.json``.

    Raises:
        ModelError: It is not SDXL's.
    """
    kind = str(index.get("_class_name", "nothing"))
    if not kind.startswith("StableDiffusionXL"):
        raise ModelError(f"{where} is a {kind}, but {_INSTEAD} (StableDiffusionXLPipeline)")
    for component in (*_WEIGHTS, *_OTHERS):
        entry = index.get(component)
        if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
            raise ModelError(
                f"{where}: model_index.json names no {component}, which SDXL's base pipeline has"
            )
        if entry[0] not in _LIBRARIES:
            raise ModelError(
                f"{where}: {component} needs code from {entry[0]!r}, which swiftdiff does not run"
            )


def check_controlnet_folder(folder: Path) -> str | None:
    """Check a ControlNet's folder and return the variant of its weights: None, or ``fp16``.

    Raises:
        ModelError: It is something else, or damaged; the message names the file.
    """
    config = read_json(folder / "config.json")
    kind = config.get("_class_name")
    if kind != "ControlNetModel":
        raise ModelError(
            f"{folder} holds a {kind or 'model of unknown class'}, but a ControlNetModel is needed"
        )
    return check_weights(folder, _WEIGHTS["unet"])


def check_weights(folder: Path, stem: str) -> str | None:
    """Check the safetensors of one component, header against size, and return their variant.

    Raises:
        ModelError: There are none (a pickle does not count), or one is damaged.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json")
    for variant in _VARIANTS:
        middle = f".{variant}" if variant else ""
        shards = sorted(folder.glob(f"{stem}-*-of-*{middle}.safetensors"))
        shards += sorted(folder.glob(f"{stem}{middle}-*-of-*.safetensors")) if variant else []
        files = [folder / f"{stem}{middle}.safetensors"]
        if not files[0].is_file():
            files = shards
        for file in files:
            read_safetensors_header(file)
        if files:
            return variant
    pickles = [*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")]
    if pickles:
        raise ModelError(
            f"{pickles[0]} is a pickle, which can run code: only safetensors are loaded; convert it first"
        )
    raise ModelError(f"{folder} has no weights: {stem}.safetensors is missing")


def check_weight_keys(folder: Path, needed: set[str]) -> None:
    """Check that a component's files hold every weight: the libraries fill up missing ones at random.

    Args:
        folder: The component's folder.
        needed: Keys of the loaded module's state dict.

    Raises:
        ModelError: One is missing; the message names it.
    """
    held = {
        _current_key(key) for file in folder.glob("*.safetensors") for key in read_safetensors_header(file)
    }
    missing = {_current_key(key) for key in needed} - held - {"embeddings.position_ids"}
    if missing:
        raise ModelError(f"{folder} has no weight {min(missing)}, which its config.json asks for")


def _current_key(key: str) -> str:
    """Return a key as all versions of the libraries can be compared by it."""
    key = key.removeprefix("text_model.")  # in files always, in transformers 5's CLIPTextModel no longer
    for old, new in _OLD_ATTENTION.items():
        key = key.replace(old, new)
    return key
