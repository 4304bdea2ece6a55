"""Imports small sources in tests."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from swiftdiff.errors import SwiftdiffError
from swiftdiff.request import ImageRequest
from swiftdiff.trace import read_trace
from swiftdiff.trace.importers.options import ImportOptions
from swiftdiff.trace.importers.run import ImportSummary, import_trace


def nothing(path: Path, position: int) -> None:
    """Take no notice of progress."""


def write(path: Path, text: str | bytes) -> Path:
    """Write a source, gzip if its name ends so."""
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def imported(format_name: str, source: Path, **options: Any) -> tuple[list[ImageRequest], ImportSummary]:
    """Import a source into the folder ``out`` beside it; return the requests read back, and the summary."""
    output = source.parent / "out" / "trace.jsonl"
    summary = import_trace(format_name, source, output, ImportOptions(**options), nothing)
    return list(read_trace(output)), summary


def refusal(format_name: str, source: Path, **options: Any) -> str:
    """Import a source that must be refused; return the message, once nothing is left behind."""
    with pytest.raises(SwiftdiffError) as caught:
        imported(format_name, source, **options)
    out = source.parent / "out"
    assert not out.exists() or list(out.iterdir()) == []
    return str(caught.value)
