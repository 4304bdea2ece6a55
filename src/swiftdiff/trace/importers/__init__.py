"""Importers of other people's traces: one file a format, and here one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from swiftdiff.trace.files import Progress

from .csv_columns import read_csv_columns
from .gentd26 import read_gentd26
from .katz import read_katz
from .mooncake import read_mooncake
from .options import ImportOptions
from .source import Reading

Importer = Callable[[Path, ImportOptions, Progress], Reading]

IMPORTERS: dict[str, Importer] = {
    "gentd26": read_gentd26,
    "katz": read_katz,
    "mooncake": read_mooncake,
    "csv": read_csv_columns,
}

__all__ = ["IMPORTERS", "ImportOptions", "Importer"]
