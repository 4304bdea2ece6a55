"""Writes small files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from swiftdiff.errors import StorageError


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file, as UTF-8 if it is text; it appears under its name once it is complete.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
            unfinished.chmod(0o644)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
