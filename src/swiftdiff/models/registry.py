"""Decides what a model's name means: embedded model, preset, folder, single file or hub id. No torch."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swiftdiff.errors import ModelError
from swiftdiff.models.family import cached_family, family_folder
from swiftdiff.models.integrity import MANIFEST_NAME, read_manifest, read_safetensors_header
from swiftdiff.models.presets import PRESETS, preset_of_shapes

ModelKind = Literal["embedded", "preset", "folder", "file", "hub"]

EMBEDDED = "shapes"
_FULL_SIZE = "sdxl"
SDXL_NATIVE_SIZE = 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: As its user wrote it.
        kind: What it is.
        path: Diffusers folder or single file; None for a hub id, and for a preset, which is made in memory
            or in the user's cache.
        native_size: Side of a picture when a request names none, in pixels. A hub id's, and a single file's
            without configs beside it, is taken to be SDXL's.
    """

    name: str
    kind: ModelKind
    path: Path | None
    native_size: int

    @property
    def adapter_url(self) -> str | None:
        """Folder of the model's own adapters (``controlnets/``, ``loras/``), or None when it has none.

        A preset's family is written to the user's cache when this is first asked for: seconds for
        ``sdxl-thin``.

        Raises:
            StorageError: The cache cannot be written.
        """
        if self.kind == "preset":
            return str(cached_family(self.name))
        root = (
            adapter_root(self.path) if self.path is not None and self.kind in ("embedded", "folder") else None
        )
        return None if root is None else str(root)

    @property
    def fitting_preset(self) -> str | None:
        """Preset whose random adapters fit a model that came without any; None if none is known to.

        Of a hub id, and of a single file, it is taken to be SDXL's; an engine refuses what does not fit.
        """
        if self.kind in ("embedded", "preset"):
            return None
        if self.kind == "folder" and self.path is not None:
            return preset_of_shapes(read_json(self.path / "unet" / "config.json"))
        return _FULL_SIZE


@dataclass(frozen=True)
class ModelListing:
    """One line of ``swiftdiff models list``.

    Attributes:
        name: How configs name it.
        kind: What it is.
        available: Whether it can be used as it is.
        parameters: Of the base pipeline; None when unknown.
        disk_bytes: Size of its files now on disk, adapters included.
        native_size: Side of its pictures in pixels; None when unknown.
        controlnets: Ids of its own ControlNets.
        loras: Ids of its own LoRAs.
    """

    name: str
    kind: ModelKind
    available: bool
    parameters: int | None
    disk_bytes: int
    native_size: int | None
    controlnets: tuple[str, ...]
    loras: tuple[str, ...]


def shapes_root() -> Path:
    """Return the folder of the embedded family, whether or not it is installed."""
    return Path(__file__).resolve().parent.parent / "data" / EMBEDDED


def resolve_model(name_or_path: str | Path) -> ModelSource:
    """Return what a model's name in a config or on the command line stands for.

    Args:
        name_or_path: ``shapes``; a preset, ``sdxl-thin`` or ``sdxl``; a diffusers folder, or the folder of a
            family that holds one as ``base/``; a ``.safetensors`` file; or a hub id such as ``org/name``.

    Raises:
        ModelError: Nothing of that name is there, or it is of a kind that is not supported.
    """
    name = str(name_or_path)
    if name == EMBEDDED:
        return _embedded()
    if name in PRESETS:
        return ModelSource(name, "preset", None, PRESETS[name].native_size)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.suffix in _PICKLES:
        raise ModelError(
            f"{name}: only safetensors are loaded, since a pickle can run code; convert it first"
        )
    if path.is_file() and path.suffix == ".safetensors":
        configs = path.with_suffix("")
        known = (configs / "model_index.json").is_file()
        return ModelSource(name, "file", path, native_size_of(configs) if known else SDXL_NATIVE_SIZE)
    if path.suffix != ".safetensors" and not path.exists() and _HUB_ID.fullmatch(name):
        return ModelSource(name, "hub", None, SDXL_NATIVE_SIZE)
    names = [EMBEDDED, *PRESETS]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ModelError(
        f"there is no model {name!r}{hint} Known are {', '.join(names)}; "
        "or name a diffusers folder, a .safetensors file, or a hub id such as org/name"
    )


def list_models() -> list[ModelListing]:
    """Return the embedded model and the presets; reads names and headers only, no weights.

    Raises:
        ModelError: The embedded model's files are malformed.
    """
    root = shapes_root()
    manifest = read_manifest(root) if (root / MANIFEST_NAME).is_file() else None
    listings = [
        ModelListing(
            name=EMBEDDED,
            kind="embedded",
            available=manifest is not None,
            parameters=count_parameters(root / "base") if manifest else None,
            disk_bytes=manifest.num_bytes if manifest else 0,
            native_size=manifest.native_size if manifest else None,
            controlnets=_ids(root / "controlnets"),
            loras=_ids(root / "loras"),
        )
    ]
    for preset in PRESETS.values():
        folder = family_folder(preset.name)
        present = (folder / MANIFEST_NAME).is_file()
        listings.append(
            ModelListing(
                name=preset.name,
                kind="preset",
                available=True,
                parameters=preset.parameters,
                disk_bytes=read_manifest(folder).num_bytes if present else 0,
                native_size=preset.native_size,
                controlnets=preset.controlnets,
                loras=preset.loras,
            )
        )
    return listings


def count_parameters(folder: Path) -> int:
    """Return the number of parameters in a diffusers folder's safetensors files, from their headers.

    Raises:
        ModelError: A file is damaged.
    """
    total = 0
    for file in sorted(folder.rglob("*.safetensors")):
        for shape in read_safetensors_header(file).values():
            size = 1
            for side in shape:
                size *= side
            total += size
    return total


def adapter_root(folder: Path) -> Path | None:
    """Return the folder that holds ``controlnets/`` or ``loras/`` for a diffusers folder, or None."""
    for root in (folder, folder.parent) if folder.name == "base" else (folder,):
        if (root / "controlnets").is_dir() or (root / "loras").is_dir():
            return root
    return None


def _embedded() -> ModelSource:
    root = shapes_root()
    if not (root / MANIFEST_NAME).is_file():
        raise ModelError(
            f"the embedded model {EMBEDDED} is not in this installation ({root}); "
            f"install swiftdiff again, or train it with `swiftdiff models train {EMBEDDED}`"
        )
    return ModelSource(EMBEDDED, "embedded", root / "base", read_manifest(root).native_size)


def _folder(name: str, path: Path) -> ModelSource:
    path = path.resolve()
    base = path / "base"
    if not (path / "model_index.json").is_file() and (base / "model_index.json").is_file():
        path = base
    if not (path / "model_index.json").is_file():
        raise ModelError(f"{path} is not a diffusers folder: it has no model_index.json")
    return ModelSource(name, "folder", path, native_size_of(path))


def native_size_of(folder: Path) -> int:
    """Return the side of pictures that a diffusers folder's configs are made for, in pixels.

    Raises:
        ModelError: The config of its UNet or VAE is missing or malformed.
    """
    unet = read_json(folder / "unet" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    try:
        factor = 1 << (len(vae["block_out_channels"]) - 1)
        latent_side = int(unet.get("sample_size") or SDXL_NATIVE_SIZE // factor)
        return latent_side * int(factor)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: unet/config.json or vae/config.json is not a diffusers config"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a model's folder.

    Raises:
        ModelError: The file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return content


def _ids(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".safetensors") for entry in folder.iterdir()))
