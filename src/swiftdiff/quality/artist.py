"""Draws an evaluation's pictures in batches with the stock pipelines; loads what a set needs and no more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swiftdiff.errors import ModelError
from swiftdiff.models.registry import ModelSource
from swiftdiff.scenes import CONTROL_KINDS, STYLES, control_from_scene

from .plan import EvaluationOptions, PictureSet, Sample

Image8 = NDArray[np.uint8]


class Artist(Protocol):
    """Something that draws samples: a model family, or in tests the renderer of the world."""

    controlnets: tuple[str, ...]
    loras: tuple[str, ...]
    side: int

    def key(self, picture_set: PictureSet) -> str:
        """Name of everything that decides what a set's pictures look like."""
        ...

    def draw(self, picture_set: PictureSet, samples: Sequence[Sample]) -> list[Image8]:
        """Draw one batch, uint8 [side, side, 3] each."""
        ...


class FamilyArtist:
    """A model family on disk: a base in diffusers format, and its own `controlnets/` and `loras/`.

    Adapters with a measure take part: ControlNets named after a kind of control image, LoRAs after a style.
    """

    def __init__(self, source: ModelSource, options: EvaluationOptions) -> None:
        if source.path is None or not source.path.is_dir():
            raise ModelError(
                f"model {source.name!r} cannot be evaluated: that needs a family folder with base/, "
                "controlnets/ and loras/, such as the embedded model's"
            )
        self._source = source
        self._options = options
        self._base: Any = None
        self._pipe: Any = None
        self._ready_for: PictureSet | None = None
        self.side = source.native_size
        root = source.adapter_url
        self._root = source.path if root is None else Path(root)
        self.controlnets = tuple(kind for kind in CONTROL_KINDS if self._controlnet_folder(kind).is_dir())
        self.loras = tuple(style for style in STYLES if self._lora_file(style).is_file())

    def key(self, picture_set: PictureSet) -> str:
        """Digest of the base's and the adapter's files and of the options that change a picture."""
        assert self._source.path is not None
        parts = [_digest(self._source.path), json.dumps(self._options.of_drawing(), sort_keys=True)]
        if picture_set.controlnet:
            parts.append(_digest(self._controlnet_folder(picture_set.controlnet)))
        if picture_set.lora:
            parts.append(_digest(self._lora_file(picture_set.lora)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def draw(self, picture_set: PictureSet, samples: Sequence[Sample]) -> list[Image8]:
        """Draw one batch; each sample has its own generator, so it does not depend on its neighbours."""
        import torch

        if picture_set != self._ready_for:
            from swiftdiff.models.quiet import quiet_libraries

            with quiet_libraries():
                self._prepare(picture_set)
        arguments: dict[str, Any] = {}
        if picture_set.controlnet:
            controls = [control_from_scene(picture_set.controlnet, item.scene, self.side) for item in samples]
            arguments["image"] = [Image.fromarray(control) for control in controls]
        with torch.inference_mode():
            pictures = self._pipe(
                prompt=[item.prompt for item in samples],
                width=self.side,
                height=self.side,
                num_inference_steps=self._options.num_inference_steps,
                guidance_scale=self._options.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(item.seed) for item in samples],
                output_type="pil",
                **arguments,
            ).images
        return [np.asarray(picture.convert("RGB")) for picture in pictures]

    def _prepare(self, picture_set: PictureSet) -> None:
        """Load the base if needed, take the last set's adapter off and put this one's on."""
        if self._base is None:
            from swiftdiff.models.loading import load_pipeline

            options = self._options
            self._base = load_pipeline(
                self._source, device=options.device, dtype=options.dtype, scheduler=options.scheduler
            )
            self._base.set_progress_bar_config(disable=True)
        if self._ready_for is not None and self._ready_for.lora:
            self._base.unload_lora_weights()
        self._pipe = self._base
        if picture_set.lora:
            file = self._lora_file(picture_set.lora)
            self._base.load_lora_weights(
                str(file.parent), weight_name=file.name, adapter_name="style", local_files_only=True
            )
        if picture_set.controlnet:
            self._pipe = self._with_controlnet(picture_set.controlnet)
        self._ready_for = picture_set

    def _with_controlnet(self, kind: str) -> Any:
        from diffusers import StableDiffusionXLControlNetPipeline

        from swiftdiff.models.loading import load_controlnet

        options = self._options
        controlnet = load_controlnet(
            self._controlnet_folder(kind), device=options.device, dtype=options.dtype
        )
        pipe = StableDiffusionXLControlNetPipeline(
            **self._base.components,
            controlnet=controlnet,
            force_zeros_for_empty_prompt=self._base.config.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _controlnet_folder(self, kind: str) -> Path:
        return self._root / "controlnets" / kind

    def _lora_file(self, style: str) -> Path:
        return self._root / "loras" / f"{style}.safetensors"


@cache
def _digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder and their names."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
