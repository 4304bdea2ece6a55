"""Imports Mooncake-style JSONL: an object a line with ``timestamp`` in milliseconds and whatever else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import Progress, read_lines

from .options import ImportOptions
from .source import Reading, Row, SourceRequest
from .values import adapters, number, text, whole

_USED = {
    "timestamp", "prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale",
    "num_images", "slo_ms", "controlnets", "loras", "base_model",
}  # fmt: skip
_MAX_NAMED = 6


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
        ignored = sorted(set(fields) - _USED)
        shown = ", ".join(ignored[:_MAX_NAMED]) + (" ..." if len(ignored) > _MAX_NAMED else "")
        yield SourceRequest(
            where=where,
            timestamp=fields["timestamp"],
            prompt=text(fields.get("prompt"), "prompt", where),
            negative_prompt=text(fields.get("negative_prompt"), "negative_prompt", where),
            width=whole(fields.get("width"), "width", where),
            height=whole(fields.get("height"), "height", where),
            num_inference_steps=whole(fields.get("num_inference_steps"), "num_inference_steps", where),
            guidance_scale=number(fields.get("guidance_scale"), "guidance_scale", where),
            num_images=whole(fields.get("num_images"), "num_images", where),
            slo_ms=number(fields.get("slo_ms"), "slo_ms", where),
            controlnets=tuple(i for i, _ in adapters(fields.get("controlnets"), "controlnets", where)),
            loras=adapters(fields.get("loras"), "loras", where),
            base_model=text(fields.get("base_model"), "base_model", where),
            notes=(("other fields", f"left out: {shown}"),) if ignored else (),
        )


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
