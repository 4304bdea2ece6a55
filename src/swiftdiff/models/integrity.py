"""Decides whether a model's files are whole: SHA-256 manifests, and safetensors headers against sizes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from swiftdiff.errors import ModelError, StorageError

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip

_verified: set[tuple[str, int, bool]] = set()


@dataclass(frozen=True)
class Manifest:
    """What a model family consists of.

    Attributes:
        name: The family, such as ``shapes``.
        version: Version of its weights.
        native_size: Side of its pictures in pixels.
        files: Size in bytes and SHA-256 by path, relative to the family's folder, with forward slashes.
    """

    name: str
    version: str
    native_size: int
    files: dict[str, tuple[int, str]]

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(size for size, _ in self.files.values())


def write_manifest(root: Path, *, name: str, version: str, native_size: int) -> Manifest:
    """Record size and SHA-256 of every file under ``root`` in ``root/manifest.json``; return the record.

    Raises:
        StorageError: A file cannot be read, or the manifest cannot be written.
    """
    try:
        found = sorted(path for path in root.rglob("*") if path.is_file() and path != root / MANIFEST_NAME)
        files = {path.relative_to(root).as_posix(): (path.stat().st_size, _sha256(path)) for path in found}
        content = {
            "format": MANIFEST_FORMAT,
            "name": name,
            "version": version,
            "native_size": native_size,
            "files": {path: {"sha256": digest, "bytes": size} for path, (size, digest) in files.items()},
        }
        (root / MANIFEST_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write the manifest of {root}: {error.strerror or error}") from error
    return Manifest(name, version, native_size, files)


def read_manifest(root: Path) -> Manifest:
    """Return what ``root/manifest.json`` says, without looking at the files.

    Raises:
        ModelError: It is missing or malformed.
    """
    path = root / MANIFEST_NAME
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != MANIFEST_FORMAT:
            raise ModelError.for_field("format", content["format"], str(MANIFEST_FORMAT), str(path))
        files = {
            str(key): (int(entry["bytes"]), str(entry["sha256"])) for key, entry in content["files"].items()
        }
        manifest = Manifest(str(content["name"]), str(content["version"]), int(content["native_size"]), files)
    except OSError as error:
        raise ModelError(f"cannot read manifest {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a manifest of swiftdiff: {error!r}") from error
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ModelError(f"{path} names {name!r}, which is outside its folder")
    return manifest


def verify_manifest(root: Path, *, hashes: bool = True) -> Manifest:
    """Check every file of a family against its manifest; a result is remembered for this process.

    Args:
        root: Folder that holds ``manifest.json``.
        hashes: Compare SHA-256 too; otherwise only that files are there with their right size.

    Raises:
        ModelError: A file is missing, truncated or altered; the message names it.
    """
    manifest = read_manifest(root)
    key = (str(root.resolve()), (root / MANIFEST_NAME).stat().st_mtime_ns, hashes)
    if key in _verified:
        return manifest
    for name, (size, digest) in manifest.files.items():
        path = root / name
        try:
            actual = path.stat().st_size
            if actual != size:
                raise ModelError(
                    f"{path} is damaged: {actual} bytes instead of {size}; install or build it again"
                )
            if hashes and _sha256(path) != digest:
                raise ModelError(
                    f"{path} is damaged: its SHA-256 is not the manifest's; install or build it again"
                )
        except OSError as error:
            raise ModelError(
                f"{path} is part of model {manifest.name} but cannot be read: {error.strerror}"
            ) from error
    _verified.add(key)
    return manifest


def read_safetensors_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a safetensors file; reads the header only and needs no torch.

    Raises:
        ModelError: It is not a safetensors file, or shorter than its header says (a broken download).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ModelError(f"{path} is not a safetensors file, or it is truncated ({size} bytes)")
            header: dict[str, Any] = json.loads(file.read(length))
        shapes, needed = _shapes(header)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a safetensors file: its header cannot be read") from error
    if needed != size - 8 - length:
        raise ModelError(
            f"{path} is damaged: it holds {size - 8 - length} bytes of weights instead of {needed}"
        )
    return shapes


def _shapes(header: dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], int]:
    shapes: dict[str, tuple[int, ...]] = {}
    needed = 0
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        shapes[key] = tuple(int(side) for side in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
        bits = _DTYPE_BITS.get(entry["dtype"])
        if bits is not None and (end - begin) * 8 != math.prod(shapes[key]) * bits:
            raise ValueError(key)
        needed = max(needed, end)
    return shapes, needed


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
