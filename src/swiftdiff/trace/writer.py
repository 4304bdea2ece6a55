"""Writes traces: one request a line, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from swiftdiff.errors import StorageError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.provenance import Provenance, format_provenance


def write_trace(
    path: Path | str,
    requests: Iterable[ImageRequest],
    provenance: Provenance | Callable[[], Provenance] | None = None,
) -> int:
    """Write requests as JSONL, gzip if the name ends in ``.gz``, and return how many there were.

    The file appears under its name once it is complete; equal requests give equal bytes.

    Args:
        path: The trace.
        requests: In order of arrival; consumed once.
        provenance: The first line, or what returns it: that is called when all requests are written, for
            whoever knows only then what was left out.

    Raises:
        StorageError: The file cannot be written.
    """
    path = Path(path)
    compressed = path.suffix == ".gz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if callable(provenance):
                    with tempfile.TemporaryFile(dir=path.parent) as body:
                        count = _write_lines(body, map(format_request, requests), compressed=compressed)
                        _write_lines(file, [format_provenance(provenance())], compressed=compressed)
                        body.seek(0)
                        shutil.copyfileobj(body, file, 1 << 20)  # gzip files may follow each other in one
                else:
                    if provenance is not None:
                        _write_lines(file, [format_provenance(provenance)], compressed=compressed)
                    count = _write_lines(file, map(format_request, requests), compressed=compressed)
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


def _write_lines(file: IO[bytes], lines: Iterable[str], *, compressed: bool) -> int:
    stream = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if compressed else file
    count = 0
    for line in lines:
        stream.write(line.encode() + b"\n")
        count += 1
    if compressed:
        stream.close()
    return count
