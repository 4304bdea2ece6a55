"""Imports Mooncake-style JSONL: an object a line with ``timestamp`` in milliseconds and whatever else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import Progress, read_lines

from .fields import FIELDS, request_from_fields
from .options import ImportOptions
from .source import Reading, Row

_MAX_SHOWN = 40


def read_mooncake(source: Path, options: ImportOptions, progress: Progress) -> Reading:
    """Read the file, plain or gzip. Fields named as a trace's own are used, others are named and left out."""
    rows = _rows(source, progress)
    return Reading(files=(source,), rows=rows, lists_controlnets=False, relative_unit="ms")


def _rows(source: Path, progress: Progress) -> Iterator[Row]:
    for line_number, line in read_lines(source, progress):
        if not line.strip():
            continue
        where = f"{source}:{line_number}"
        fields = _parse(line, where)
        if "timestamp" not in fields:
            raise TraceError(f"{where}: field timestamp is missing; it is the arrival in milliseconds")
        ignored = [name[:_MAX_SHOWN] for name in fields if name not in FIELDS]
        yield request_from_fields(fields, where, tuple((name, "left out: not used") for name in ignored))


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise TraceError(f"{where}: not valid JSON: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}: not valid JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise TraceError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TraceError.for_field("the line", value, "an object with named fields", where)
    return value
