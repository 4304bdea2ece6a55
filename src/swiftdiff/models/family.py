"""Writes a preset's family to disk (``base/``, ``controlnets/``, ``loras/``), or to the user's cache."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.models.integrity import MANIFEST_NAME, verify_manifest, write_manifest
from swiftdiff.models.presets import Preset, find_preset

if TYPE_CHECKING:
    from swiftdiff.models.preset_loras import LoraPlan

FAMILY_VERSION = "2"  # raise it when presets or their adapters change, so that caches are made anew
_STALE_AFTER_S = 24 * 3600.0
_LORA_WRITERS = 4  # each holds a LoRA as float32: 0.7 GB for SDXL


def materialize_preset(name: str, folder: Path, seed: int = 0, *, loras: int = 8, base: bool = True) -> Path:
    """Write a preset with its adapters as an adapter store and diffusers folders, whole or not at all.

    Args:
        name: ``sdxl-thin`` or ``sdxl``.
        folder: Must not exist, or be empty; the manifest in it is written last.
        seed: Chooses all weights.
        loras: How many LoRAs; the first eight have the ids of the embedded model's styles.
        base: Write the base pipeline too, not only the adapters. Without it a large preset's ControlNets are
            written as recipes: their weights would take as long to write and read as all the rest together.

    Returns:
        The folder, absolute.

    Raises:
        ModelError: There is no preset of that name.
        StorageError: The folder is not empty, the disk is too full, or it cannot be written.
    """
    preset = find_preset(name)
    folder = folder.expanduser().absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder} already exists and is not an empty folder; name another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        temporary = Path(tempfile.mkdtemp(prefix=_temporary_prefix(folder), dir=folder.parent))
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror or error}") from error
    try:
        _write_family(preset, temporary, seed, loras, base)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def family_folder(name: str, seed: int = 0) -> Path:
    """Return where the cache keeps a preset's adapters, whether or not they are there."""
    return cache_root() / "families" / f"{name}-{FAMILY_VERSION}-seed{seed}"


def cached_family(name: str, seed: int = 0) -> Path:
    """Return a preset's adapters in the user's cache, written there when missing or damaged.

    Safe against a crash in the middle (the folder appears by a rename) and against two processes at once (the
    second to finish uses the first one's).

    Raises:
        ModelError: There is no preset of that name.
        StorageError: The cache cannot be written.
    """
    find_preset(name)
    folder = family_folder(name, seed)
    if _is_whole(folder):
        return folder
    _remove(folder)
    try:
        return materialize_preset(name, folder, seed, base=False)
    except StorageError:
        if _is_whole(folder):
            return folder
        raise


def cache_root() -> Path:
    """Return the platform's cache folder for swiftdiff, such as ``~/.cache/swiftdiff``."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        named = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    return base / "swiftdiff"


def _write_family(preset: Preset, root: Path, seed: int, loras: int, base: bool) -> None:
    import torch

    from swiftdiff.models.preset_loras import preset_lora_plan, write_preset_lora
    from swiftdiff.models.presets import build_preset, build_preset_controlnet
    from swiftdiff.models.recipes import Recipe, write_recipe
    from swiftdiff.models.saving import save_half

    half = torch.float16
    plans = preset_lora_plan(preset, loras)
    recipes = preset.is_large and not base
    # Three ControlNets are about as large as the pipeline; a LoRA of rank 64 is a twentieth of it.
    needed = 2 * preset.parameters * (len(plans) / 20 if recipes else 2 if base else 1)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StorageError(
            f"{preset.name} needs about {needed / 1e9:.1f} GB in {root.parent}, {free / 1e9:.1f} are free"
        )
    if base:
        save_half(build_preset(preset.name, seed, dtype=half), root / "base")
    for controlnet in preset.controlnets:
        folder = root / "controlnets" / controlnet
        if recipes:
            write_recipe(folder, Recipe(preset.name, controlnet, seed))
        else:
            save_half(build_preset_controlnet(preset.name, controlnet, seed, dtype=half), folder)

    def write_lora(lora_id: str, plan: LoraPlan) -> None:
        path = root / "loras" / f"{lora_id}.safetensors"
        write_preset_lora(path, preset.name, seed=seed, lora_id=lora_id, plan=plan)

    with ThreadPoolExecutor(_LORA_WRITERS) as writers:  # drawing numbers keeps one core busy each
        list(writers.map(write_lora, plans.keys(), plans.values()))
    write_manifest(root, name=preset.name, version=FAMILY_VERSION, native_size=preset.native_size)


def _is_whole(folder: Path) -> bool:
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        verify_manifest(folder, hashes=False)
    except ModelError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Take a damaged folder out of the way in one step, then delete it."""
    if not folder.exists():
        return
    grave = folder.with_name(f"{_temporary_prefix(folder)}{os.getpid()}")
    try:
        folder.replace(grave)
    except FileNotFoundError:
        return  # another process was first
    except OSError as error:
        raise StorageError(f"cannot replace damaged {folder}: {error.strerror or error}") from error
    shutil.rmtree(grave, ignore_errors=True)


def _temporary_prefix(folder: Path) -> str:
    return f".{folder.name}.building-"


def _remove_stale(folder: Path) -> None:
    """Delete what processes that died while they wrote this very folder left behind."""
    for entry in folder.parent.glob(f"{escape(_temporary_prefix(folder))}*"):
        try:
            if time.time() - entry.stat().st_mtime > _STALE_AFTER_S:
                shutil.rmtree(entry, ignore_errors=True)
        except OSError:
            continue  # another process deletes it
