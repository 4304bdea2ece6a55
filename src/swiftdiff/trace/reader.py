"""Reads traces: one `ImageRequest` a line, strictly, in memory that does not grow with the trace's length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swiftdiff.errors import TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.files import opened, read_lines
from swiftdiff.trace.provenance import Provenance, Source, is_provenance, parse_provenance
from swiftdiff.trace.uniqueness import SeenIds
from swiftdiff.validation import describe


@dataclass(frozen=True)
class TraceInfo:
    """What one pass over a whole, valid trace tells.

    Attributes:
        path: The file.
        sha256: Hex digest of the file's bytes as they lie on disk.
        num_requests: Number of requests.
        num_images: Pictures that they ask for.
        duration_s: Seconds from the trace's start to the last arrival.
        provenance: Where it comes from, if its first line says so.
    """

    path: Path
    sha256: str
    num_requests: int
    num_images: int
    duration_s: float
    provenance: Provenance | None = None

    @property
    def images_root(self) -> Path:
        """The folder that control images are relative to."""
        return self.path.parent


def read_trace(path: Path | str) -> Iterator[ImageRequest]:
    """Yield the requests of a JSONL file, plain or gzip, in order of arrival.

    Blank lines are skipped, and so is a provenance line if it is the first.

    Raises:
        TraceError: The file cannot be read, or a line is wrong; it names file, line and field.
    """
    path = Path(path)
    seen = SeenIds()
    previous_ms = 0.0
    for number, line in _request_lines(path):
        where = f"{path}:{number}"
        request = parse_request(line, where)
        if request.timestamp < previous_ms:
            allowed = f"at least the timestamp before it, {previous_ms:g} (a trace is sorted by arrival)"
            raise TraceError.for_field("timestamp", request.timestamp, allowed, where)
        if not seen.add(request.request_id):
            first = _line_of_id(path, request.request_id, number)
            if first is not None:
                allowed = f"unique in the trace (line {first} has it too)"
                raise TraceError.for_field("request_id", request.request_id, allowed, where)
        previous_ms = request.timestamp
        yield request


def scan_trace(path: Path | str) -> TraceInfo:
    """Check a whole trace and return what is in it.

    Raises:
        TraceError: It cannot be read, a line is wrong, or it holds no request.
    """
    path = Path(path)
    num_requests = num_images = 0
    last_ms = 0.0
    for request in read_trace(path):
        num_requests += 1
        num_images += max(request.num_images, 0)
        last_ms = request.timestamp
    if num_requests == 0:
        raise TraceError(f"{path}: the trace holds no requests; a trace has one JSON object a line")
    return TraceInfo(
        path, trace_sha256(path), num_requests, num_images, last_ms / 1000, read_provenance(path)
    )


def read_provenance(path: Path | str) -> Provenance | None:
    """Return where a trace comes from, as its first line says; None if that is a request already.

    Raises:
        TraceError: The line is wrong, or the file cannot be read.
    """
    path = Path(path)
    for number, line in _lines(path):
        return parse_provenance(line, f"{path}:{number}") if is_provenance(line) else None
    return None


def trace_sha256(path: Path | str) -> str:
    """Return the hex SHA-256 of the file's bytes as they lie on disk.

    Raises:
        TraceError: The file cannot be read.
    """
    with opened(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(path: Path | str) -> Source:
    """Return a file as a provenance line names it.

    Raises:
        TraceError: It cannot be read.
    """
    return Source(name=Path(path).name, sha256=trace_sha256(path))


def parse_request(line: str | bytes, where: str) -> ImageRequest:
    """Validate one line of a trace; ``where`` names it in errors, as ``file:line``.

    Raises:
        TraceError: It is not a JSON object, or a field of it is wrong.
    """
    try:
        request = ImageRequest.model_validate_json(line)
    except ValidationError as error:
        raise TraceError(f"{where}: {describe(error, ImageRequest)}") from error
    repeated: list[str] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in set(names) if names.count(name) > 1)

    json.loads(line, object_pairs_hook=note_repeated)  # pydantic would silently take the last of two
    if repeated:
        raise TraceError(f"{where}: field {min(repeated)} is given more than once, but must be given once")
    return request


def _request_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) for all lines that are to hold a request."""
    for index, (number, line) in enumerate(_lines(path)):
        if not is_provenance(line):
            yield number, line
        elif index == 0:
            parse_provenance(line, f"{path}:{number}")
        else:
            raise TraceError(
                f"{path}:{number}: a provenance line inside the trace, but it can only be the first; "
                "join traces with swiftdiff trace merge"
            )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) for the lines that are not blank."""
    for number, line in read_lines(path):
        if stripped := line.strip():
            yield number, stripped


def _line_of_id(path: Path, request_id: str, before: int) -> int | None:
    """Return the first line before ``before`` that has ``request_id``, or None if it only shared a hash."""
    for number, line in _request_lines(path):
        if number >= before:
            break
        if ImageRequest.model_validate_json(line).request_id == request_id:
            return number
    return None
