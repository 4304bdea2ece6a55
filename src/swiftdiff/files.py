"""Owns how results get onto the disk: files whole or not at all, lines at once, folders that were free."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image
from pydantic import BaseModel, ValidationError

from swiftdiff.errors import StorageError

PNG_COMPRESS_LEVEL = 1  # lossless at any level; this one costs a third of the default's time

_Model = TypeVar("_Model", bound=BaseModel)


def cannot(what: str, path: Path, error: OSError) -> StorageError:
    """Return the error that says what could not be done with a file, and why."""
    return StorageError(f"cannot {what} {path}: {error.strerror or error}")


def check_free(path: Path, begun: str | None = None, *, replaces: str | None = None) -> None:
    """Refuse a folder that exists and is not empty.

    Args:
        path: What the user named by ``--out``.
        begun: What in it ``--resume`` could go on with, such as ``run``; None if nothing.
        replaces: Name of a file that tells an earlier result, which may be written over.

    Raises:
        StorageError: It holds something already, or cannot be looked into.
    """
    try:
        occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise cannot("look into", path, error) from error
    if occupied and not (replaces is not None and (path / replaces).is_file()):
        hint = "name another" if begun is None else f"to go on with the {begun} in it: --resume {path}"
        raise StorageError(f"--out {path} is not empty; {hint}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which then appears under its name; its folder is made.

    Raises:
        StorageError: It cannot be written; no part of it is left.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # there may not even be a folder
            partial.unlink()
        raise cannot("write", path, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; see `whole`."""
    with whole(path) as partial:
        partial.write_bytes(data)


def write_png(path: Path, picture: Image) -> None:
    """Write a picture as PNG whole or not at all; see `whole`."""
    with whole(path) as partial:
        picture.save(partial, format="PNG", compress_level=PNG_COMPRESS_LEVEL)


def read_model(path: Path, model: type[_Model]) -> _Model:
    """Return what a JSON file holds.

    Raises:
        StorageError: It cannot be read or is damaged.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise cannot("read", path, error) from error
    except ValidationError as error:
        raise StorageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def parse_line(model: type[_Model], line: bytes) -> _Model | None:
    """Return the record that a line holds, None if it is torn or damaged."""
    try:
        return model.model_validate_json(line)
    except ValidationError:
        return None


def read_lines(path: Path, model: type[_Model]) -> Iterator[tuple[_Model, int]]:
    """Yield each record of a file that `append_line` writes, with the offset at which its line ends.

    A torn last line, left by a crash, is passed over.

    Raises:
        StorageError: The file cannot be read, or a line before the last is damaged.
    """
    try:
        with path.open("rb") as file:
            end, torn = 0, 0
            for number, line in enumerate(file, start=1):
                if torn:
                    raise StorageError(f"{path}:{torn}: the record is damaged")
                record = parse_line(model, line) if line.endswith(b"\n") else None
                if record is None:
                    torn = number
                    continue
                end += len(line)
                yield record, end
    except OSError as error:
        raise cannot("read", path, error) from error


def drop_torn_line(path: Path, model: type[BaseModel]) -> None:
    """Cut off a last line that a crash left unfinished.

    Raises:
        StorageError: The file is damaged elsewhere or cannot be written.
    """
    end = 0
    for _, line_end in read_lines(path, model):
        end = line_end
    try:
        os.truncate(path, end)
    except OSError as error:
        raise cannot("repair", path, error) from error


def append_line(path: Path, line: str) -> None:
    """Add a line at once, whole or not at all.

    Raises:
        StorageError: It cannot be written; what was written of it is taken back.
    """
    data = line.encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(data) != len(data):
                    raise OSError("only a part of the line could be written; is the disk full?")
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise cannot("append to", path, error) from error
