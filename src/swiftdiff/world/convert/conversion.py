"""Turns a checkpoint of Self-Forcing or CausVid into a folder that `load_world` and stock diffusers load.

::

    transformer/config.json
    transformer/diffusion_pytorch_model*.safetensors   shards of bounded size, and their index
    vae/                                               copied, if one was named
    prompts.safetensors                                the same
    world.json                                         how it is run

Nothing but one shard is ever in memory. The folder is written beside its place and renamed at the end.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.files import check_free
from swiftdiff.models.checkpoints import cause
from swiftdiff.models.folders import check_weights
from swiftdiff.models.registry import read_json
from swiftdiff.models.saving import FILE_MODE
from swiftdiff.world.config import SamplerConfig
from swiftdiff.world.convert.checkpoint import Checkpoint, Weights, open_checkpoint
from swiftdiff.world.convert.keys import HEAD_DIM, check_shapes, infer_config, map_keys
from swiftdiff.world.loading import EMBEDDINGS_NAME, SETTINGS_NAME, WorldSettings, check_embeddings

if TYPE_CHECKING:
    import torch

Recipe = Literal["self-forcing", "causvid"]

STEM: Final = "diffusion_pytorch_model"
DEFAULT_SHARD_BYTES: Final = 2_000_000_000

# Of all checkpoints so far: 480 by 832 pixels, an eighth of that in latents, three latent frames a block.
_FRAMES_PER_BLOCK: Final = 3
_LATENT_HEIGHT: Final = 60
_LATENT_WIDTH: Final = 104
_FPS: Final = 16.0
_VAE_CHANNELS: Final = 16  # where a config says nothing

# Self-Forcing: steps 1000, 750, 500, 250 on a schedule shifted by 5. CausVid: its steps 1000, 757 and 522
# are timesteps as they are. Both predict the clean block and add fresh noise.
RECIPES: Final[dict[Recipe, SamplerConfig]] = {
    "self-forcing": SamplerConfig(sigmas=(1.0, 0.75, 0.5, 0.25), shift=5.0, renoise=True),
    "causvid": SamplerConfig(sigmas=(1.0, 0.757, 0.522), shift=1.0, renoise=True),
}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: The model's.
        weights: Which set of the checkpoint was taken.
        config: Of the transformer.
        parameters: Their number.
        num_bytes: Of the weights.
        shards: Number of their files.
        missing: What it lacks to be run: ``vae``, ``prompts.safetensors``, both or nothing.
    """

    folder: Path
    weights: Weights
    config: dict[str, Any]
    parameters: int
    num_bytes: int
    shards: int
    missing: tuple[str, ...]


def convert(
    checkpoint: Path,
    out: Path,
    *,
    recipe: Recipe = "self-forcing",
    weights: Weights | None = None,
    vae: Path | None = None,
    embeddings: Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    head_dim: int = HEAD_DIM,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Converted:
    """Convert a checkpoint.

    Args:
        checkpoint: See `open_checkpoint`.
        out: The folder: not there yet, or empty.
        recipe: How the model was distilled, which says how it is sampled.
        weights: See `open_checkpoint`.
        vae: A diffusers folder of ``AutoencoderKLWan``, which is copied.
        embeddings: Features of prompts, [tokens, text_dim] by text; copied: then no text encoder is needed.
        dtype: Of the weights; None leaves each as it is.
        head_dim: Width of an attention head, which shapes do not tell.
        shard_bytes: Largest size of one file of weights; a single larger weight has a file of its own.

    Raises:
        ModelError: The checkpoint, the autoencoder or the features of prompts cannot be used.
        StorageError: The folder is not empty or cannot be written.
    """
    check_free(out)
    opened = open_checkpoint(checkpoint, weights)
    names = map_keys(opened.shapes, str(checkpoint))
    shapes = {name: opened.shapes[key] for name, key in names.items()}
    config = infer_config(shapes, str(checkpoint), head_dim)
    model = build_transformer(config)
    needed = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    check_shapes(shapes, needed, str(checkpoint))
    if vae is not None:
        _check_vae(vae, config["out_channels"])
    if embeddings is not None:
        check_embeddings(embeddings, config["text_dim"])
    partial = out.parent / f"{out.name}.part"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "transformer").mkdir(parents=True)
        model.save_config(partial / "transformer")
        num_bytes, shards = _write_shards(partial / "transformer", opened, names, dtype, shard_bytes)
        if vae is not None:
            shutil.copytree(vae, partial / "vae")
        if embeddings is not None:
            shutil.copyfile(embeddings, partial / EMBEDDINGS_NAME)
        _write_settings(partial, recipe, config)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Converted(
        folder=out,
        weights=opened.weights,
        config=config,
        parameters=sum(math.prod(shape) for shape in needed.values()),
        num_bytes=num_bytes,
        shards=shards,
        missing=tuple(name for name, given in (("vae", vae), (EMBEDDINGS_NAME, embeddings)) if given is None),
    )


def build_transformer(config: Mapping[str, Any]) -> Any:
    """Return diffusers' Wan transformer of a config, without memory for its weights."""
    import torch
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        return WanTransformer3DModel(**config)


def plan_shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Divide weights into files: in order, each as full as it may be.

    Args:
        sizes: Bytes by name.
        shard_bytes: The most of one file, unless a single weight is larger.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_shards(
    folder: Path, opened: Checkpoint, names: Mapping[str, str], dtype: str | None, shard_bytes: int
) -> tuple[int, int]:
    """Write the weights and their index; return bytes and number of files."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target: torch.dtype | None = None if dtype is None else getattr(torch, dtype)
    sizes = {name: _num_bytes(opened, names[name], target) for name in sorted(names, key=_place)}
    shards = plan_shards(sizes, shard_bytes)
    total = len(shards)
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards, start=1):
        file = f"{STEM}.safetensors" if total == 1 else f"{STEM}-{number:05}-of-{total:05}.safetensors"
        tensors = {name: _copy(opened, names[name], target) for name in keys}
        try:
            save_file(tensors, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # its own kind for a full disk
            raise StorageError(f"cannot write {folder / file}: {cause(error)}") from error
        (folder / file).chmod(FILE_MODE)
        weight_map |= dict.fromkeys(keys, file)
    if total > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        path = folder / f"{STEM}.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return sum(sizes.values()), total


def _copy(opened: Checkpoint, key: str, target: torch.dtype | None) -> torch.Tensor:
    """Return a copy of a weight: those of a checkpoint may share memory, or be views of a larger one.

    Raises:
        ModelError: It is none that a layer can compute with.
    """
    import torch

    value = opened.read(key)
    if value.is_meta or value.layout != torch.strided or not value.is_floating_point():
        kind = "meta" if value.is_meta else f"{value.layout} {value.dtype}".replace("torch.", "")
        raise ModelError(f"{opened.where}: {key} is {kind}, but must be plain floating-point numbers")
    copied = value.to(target or value.dtype, copy=True).contiguous()
    if not copied.float().isfinite().all():
        kind = "" if target is None else f" as {target}".replace("torch.", "")
        raise ModelError(f"{opened.where}: {key} holds numbers that are not finite{kind}")
    return copied


def _num_bytes(opened: Checkpoint, key: str, target: torch.dtype | None) -> int:
    value = opened.read(key)  # memory-mapped: this reads no weights
    return int(value.numel() * (value.element_size() if target is None else target.itemsize))


def _place(name: str) -> tuple[int, str]:
    parts = name.split(".")
    return (int(parts[1]) if parts[0] == "blocks" else -1, name)


def _check_vae(folder: Path, channels: int) -> None:
    check_weights(folder, STEM)
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "AutoencoderKLWan":
        kind = config.get("_class_name", "model of unknown class")
        raise ModelError(f"--vae {folder} holds a {kind}, but an AutoencoderKLWan is needed")
    made = config.get("z_dim", _VAE_CHANNELS)
    if made != channels:
        raise ModelError(
            f"--vae {folder} makes latents of {made} channels, but the transformer takes {channels}"
        )


def _write_settings(folder: Path, recipe: Recipe, config: Mapping[str, Any]) -> None:
    settings = WorldSettings(
        frames_per_block=_FRAMES_PER_BLOCK,
        latent_channels=config["in_channels"],
        latent_height=_LATENT_HEIGHT,
        latent_width=_LATENT_WIDTH,
        fps=_FPS,
        prompt_encoder="embeddings",
        sampler=RECIPES[recipe],
    )
    (folder / SETTINGS_NAME).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
