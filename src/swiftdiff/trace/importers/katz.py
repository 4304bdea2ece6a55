"""Imports the Katz trace: a JSON array of requests of two services, with adapters but no prompts or sizes.

Source: Li et al., Katz (USENIX ATC 2025), its artifact's ``trace`` folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import Progress
from swiftdiff.validation import unknown_name

from .json_array import read_array
from .options import ImportOptions
from .source import Dropped, Reading, Row, SourceRequest
from .values import adapters, text

FIELDS = ("timestamp", "ip", "scene_id", "base_model_id", "controlnets", "loras")


def read_katz(source: Path, options: ImportOptions, progress: Progress) -> Reading:
    """Read the file, plain or gzip; ``options.scene`` chooses one of the services A and B."""
    return Reading(files=(source,), rows=_rows(source, options.scene, progress))


def _rows(source: Path, scene: str | None, progress: Progress) -> Iterator[Row]:
    for where, element in read_array(source, progress):
        _check_fields(element, where)
        service = text(element.get("scene_id"), "scene_id", where)
        if scene is not None and service != scene:
            yield Dropped("of another service (scene_id)")
            continue
        controlnets = adapters(element.get("controlnets"), "controlnets", where)
        yield SourceRequest(
            where=where,
            timestamp=element["timestamp"],
            base_model=text(element.get("base_model_id"), "base_model_id", where),
            controlnets=tuple(identity for identity, _ in controlnets),
            loras=adapters(element.get("loras"), "loras", where),
        )


def _check_fields(element: Any, where: str) -> None:
    if not isinstance(element, dict):
        raise TraceError.for_field("the element", element, "an object with named fields", where)
    for name in element:
        if name not in FIELDS:
            raise TraceError(f"{where}: {unknown_name('field', name, FIELDS)}")
    if "timestamp" not in element:
        raise TraceError(f"{where}: field timestamp is missing")
