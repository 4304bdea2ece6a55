"""Writes traces: one request a line, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from swiftdiff.errors import StorageError
from swiftdiff.request import ImageRequest


def write_trace(path: Path | str, requests: Iterable[ImageRequest]) -> int:
    """Write requests as JSONL, gzip if the name ends in ``.gz``, and return how many there were.

    The file appears under its name once it is complete; equal requests give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                count = _write_lines(file, requests, compressed=path.suffix == ".gz")
            unfinished.chmod(0o644)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write trace {path}: {error.strerror or error}") from error
    return count


def format_request(request: ImageRequest) -> str:
    """Return the request as one line of a trace, without line end; what is None or empty is left out."""
    fields = request.model_dump(exclude_none=True)
    return json.dumps({name: value for name, value in fields.items() if value != ()}, ensure_ascii=False)


def _write_lines(file: IO[bytes], requests: Iterable[ImageRequest], *, compressed: bool) -> int:
    stream = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if compressed else file
    count = 0
    for request in requests:
        stream.write(format_request(request).encode() + b"\n")
        count += 1
    if compressed:
        stream.close()
    return count
