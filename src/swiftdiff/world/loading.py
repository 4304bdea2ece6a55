"""Turns a world's name or folder into a model that can be run.

A world's folder::

    world.json           `WorldSettings`: how it is run
    transformer/         stock WanTransformer3DModel
    vae/                 stock AutoencoderKLWan
    prompts.safetensors  with ``prompt_encoder`` "embeddings": [tokens, text_dim] under each prompt's
                         text, and what no prompt is under the empty text; for Wan as its pipeline makes
                         them: UMT5's features, zeros after the text's tokens up to 512

Only safetensors are ever read, and headers are checked against file sizes first.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, Protocol

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from pydantic import Field, ValidationError
from safetensors.torch import load_file

import swiftdiff
from swiftdiff.errors import ModelError, RequestError
from swiftdiff.models.checkpoints import cause
from swiftdiff.models.folders import check_weight_keys, check_weights
from swiftdiff.models.integrity import MANIFEST_NAME, read_safetensors_header, verify_manifest
from swiftdiff.models.loading import find_device, find_dtype
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import read_json
from swiftdiff.validation import StrictModel, describe, unknown_name
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import SamplerConfig
from swiftdiff.world.presets import PRESETS, build_bounce_random

EMBEDDED = "bounce"
SETTINGS_NAME = "world.json"
EMBEDDINGS_NAME = "prompts.safetensors"
_STEM = "diffusion_pytorch_model"
_LISTED_CHARS = 500  # of all prompts together, up to which a message lists them

Size = Annotated[int, Field(ge=1, le=4096)]


class WorldSettings(StrictModel):
    """How a world is run: ``world.json`` of its folder.

    Attributes:
        format: Of this file.
        frames_per_block: Latent frames that are made together.
        latent_channels: Of the autoencoder.
        latent_height: Of a latent frame.
        latent_width: Of a latent frame.
        fps: Frames of pixels a second at which its motion looks right.
        prompt_encoder: ``bounce`` parses text, without weights; ``embeddings`` looks it up in a file.
        resting_prompt: The prompt of blocks after the first, where prompts are actions; None goes on with
            the clip's own.
        sampler: That it was trained for.
    """

    format: Literal[1] = 1
    frames_per_block: Size = 3
    latent_channels: Size
    latent_height: Size
    latent_width: Size
    fps: Annotated[float, Field(gt=0, le=1000)]
    prompt_encoder: Literal["bounce", "embeddings"]
    resting_prompt: str | None = None
    sampler: SamplerConfig = SamplerConfig()

    @property
    def block_shape(self) -> tuple[int, int, int, int, int]:
        """One clip's latents of one block: 1, channels, frames, height, width."""
        return (1, self.latent_channels, self.frames_per_block, self.latent_height, self.latent_width)


class PromptEncoder(Protocol):
    """Turns text into what the transformer's cross-attention reads."""

    def encode(self, text: str) -> torch.Tensor:
        """Return a prompt's features, [1, tokens, text_dim].

        Raises:
            RequestError: The text is none that the world knows.
        """
        ...

    def null(self) -> torch.Tensor:
        """Return the features of no prompt, for guidance, [1, tokens, text_dim]."""
        ...

    def follow(self, told: str, asked: str) -> str:
        """Return the whole text of a block.

        Args:
            told: The text of the block before.
            asked: What the block's user asks for; `encode` takes it.
        """
        ...


@dataclass(frozen=True)
class WorldModel:
    """A world, ready to run.

    Attributes:
        name: As its user wrote it.
        causal: Its transformer.
        vae: Its autoencoder; ``latents_mean`` and ``latents_std`` of its config standardise latents.
        prompts: Its prompt encoder.
        settings: How it is run.
    """

    name: str
    causal: CausalWan
    vae: AutoencoderKLWan
    prompts: PromptEncoder
    settings: WorldSettings


class EmbeddedPrompts:
    """Prompts whose features were computed beforehand.

    Args:
        embeddings: [tokens, text_dim] by text; the empty text is no prompt.

    Attributes:
        texts: The prompts that there are features for, sorted.
    """

    def __init__(self, embeddings: dict[str, torch.Tensor]) -> None:
        self._embeddings = embeddings
        self.texts = tuple(sorted(text for text in embeddings if text))

    def encode(self, text: str) -> torch.Tensor:
        """Return a prompt's features, [1, tokens, text_dim].

        Raises:
            RequestError: There are none for this text.
        """
        if text not in self.texts:
            raise RequestError(self._unknown(text))
        return self._embeddings[text].unsqueeze(0)

    def follow(self, told: str, asked: str) -> str:
        """Return what is asked for: a text stands for itself."""
        return asked

    def null(self) -> torch.Tensor:
        """Return the features of no prompt, [1, tokens, text_dim].

        Raises:
            RequestError: There are none, so that guidance cannot be had.
        """
        if "" not in self._embeddings:
            raise RequestError(
                f"{EMBEDDINGS_NAME} has no features for the empty prompt, which guidance needs"
            )
        return self._embeddings[""].unsqueeze(0)

    def _unknown(self, text: str) -> str:
        if sum(map(len, self.texts)) <= _LISTED_CHARS:
            return unknown_name("prompt", text, self.texts)
        near = difflib.get_close_matches(text, self.texts, n=1, cutoff=0)[0]
        return (
            f"unknown prompt {shorten(text, 80)!r}; {EMBEDDINGS_NAME} has features for {len(self.texts)}, "
            f"of which the nearest is {near!r}"
        )


def load_world(
    name_or_folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> WorldModel:
    """Load a world.

    Args:
        name_or_folder: ``bounce``, a preset of random weights such as ``bounce-random``, or a folder.
        device: Where it will run, such as ``cpu`` or ``cuda:0``.
        dtype: Of all weights and activations: float32, float16 or bfloat16.

    Raises:
        ModelError: It is missing or damaged, or its parts do not fit each other; the message says which.
        ConfigError: The device or dtype is not one that exists here.
    """
    name = str(name_or_folder)
    target, kind = find_device(device), find_dtype(dtype)
    if name in PRESETS:
        preset = build_bounce_random(device=target, dtype=kind)
        return replace(preset, causal=_make_causal(preset.causal.transformer))
    if name == EMBEDDED:
        return _load_folder(name, _embedded_folder(), target, kind)
    folder = Path(name_or_folder)
    if not folder.is_dir():
        raise ModelError(
            f"{unknown_name('world', name, (EMBEDDED, *PRESETS))}; or a folder that has a {SETTINGS_NAME}"
        )
    return _load_folder(name, folder, target, kind)


def read_settings(folder: Path) -> WorldSettings:
    """Return what a folder's ``world.json`` says.

    Raises:
        ModelError: It is missing or malformed.
    """
    path = folder / SETTINGS_NAME
    if not path.is_file():
        raise ModelError(f"{folder} is not a world's folder: it has no {SETTINGS_NAME}")
    read_json(path)  # for its messages about files that hold something else
    try:
        return WorldSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path}: {describe(error, WorldSettings)}") from error


def check_embeddings(file: Path, text_dim: int) -> None:
    """Check that a file holds prompts' features in a transformer's width.

    Raises:
        ModelError: It does not, or cannot be read.
    """
    shapes = read_safetensors_header(file)
    if not any(shapes):  # texts that are not empty
        raise ModelError(f"{file} has no prompt: one tensor [tokens, {text_dim}] under each prompt's text")
    for text, shape in shapes.items():
        if len(shape) != 2 or shape[0] < 1 or shape[1] != text_dim:
            raise ModelError(f"{file}: {text!r} has shape {list(shape)}, but must have [tokens, {text_dim}]")


def _embedded_folder() -> Path:
    folder = Path(swiftdiff.__file__).parent / "data" / EMBEDDED
    if not (folder / MANIFEST_NAME).is_file():
        raise ModelError(
            f"{EMBEDDED}'s weights are not part of this installation: train them with `swiftdiff world train "
            f"bounce` and name their folder, or name {PRESETS[0]}, whose weights are random"
        )
    verify_manifest(folder)
    return folder


def _load_folder(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> WorldModel:
    settings = read_settings(folder)
    transformer = _load_part(WanTransformer3DModel, folder / "transformer", device, dtype)
    vae = _load_part(AutoencoderKLWan, folder / "vae", device, dtype)
    _check_that_parts_fit(folder, settings, transformer.config, vae.config)
    prompts = _load_prompts(folder, settings, transformer.config.text_dim)
    return WorldModel(name, _make_causal(transformer), vae, prompts, settings)


def _make_causal(transformer: WanTransformer3DModel) -> CausalWan:
    """Return what makes blocks; fast on a CPU, for loaded weights do not change."""
    return CausalWan(transformer, fast=transformer.device.type == "cpu")


def _load_part(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    found = read_json(folder / "config.json").get("_class_name")
    if found != kind.__name__:
        raise ModelError(f"{folder} holds a {found or 'model of unknown class'}, not a {kind.__name__}")
    variant = check_weights(folder, _STEM)
    with quiet_libraries():
        try:
            part = kind.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, variant=variant
            )
            check_weight_keys(folder, set(part.state_dict()))
            part.to(device)
        except ModelError:
            raise
        except Exception as error:  # whatever the library says about a folder that it cannot read
            raise ModelError(f"{folder} cannot be loaded: {cause(error)}") from error
    return part.eval().requires_grad_(False)


def _check_that_parts_fit(folder: Path, settings: WorldSettings, transformer: Any, vae: Any) -> None:
    where = str(folder / SETTINGS_NAME)
    for part, channels in (("transformer", transformer.in_channels), ("vae", vae.z_dim)):
        if channels != settings.latent_channels:
            raise ModelError.for_field(
                "latent_channels", settings.latent_channels, f"the {part}'s, {channels}", where
            )
    fields = ("frames_per_block", "latent_height", "latent_width")
    for field, patch in zip(fields, transformer.patch_size, strict=True):
        if getattr(settings, field) % patch:
            raise ModelError.for_field(
                field, getattr(settings, field), f"a multiple of the transformer's patch, {patch}", where
            )


def _load_prompts(folder: Path, settings: WorldSettings, text_dim: int) -> PromptEncoder:
    if settings.prompt_encoder == "bounce":
        from swiftdiff.world.bounce.prompts import NUM_FEATURES, BouncePrompts

        if text_dim != NUM_FEATURES:
            raise ModelError(
                f"{folder}: the transformer's prompts have {text_dim} features, bounce's {NUM_FEATURES}"
            )
        return BouncePrompts()
    path = folder / EMBEDDINGS_NAME
    if not path.is_file():
        raise ModelError(
            f"{folder} has no {EMBEDDINGS_NAME}, which its prompts' features come from: one tensor "
            f"[tokens, {text_dim}] under each prompt's text, and one under the empty text for no prompt"
        )
    check_embeddings(path, text_dim)
    features = load_file(path)
    for text, value in features.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise ModelError(f"{path}: {text!r} does not hold finite floating-point numbers")
    return EmbeddedPrompts(features)
