"""Imports any CSV file whose columns are, or are mapped to, the fields of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swiftdiff.errors import ConfigError, TraceError
from swiftdiff.trace.files import Progress
from swiftdiff.validation import unknown_name

from .csv_rows import read_header, read_rows
from .fields import FIELDS, request_from_fields
from .options import ImportOptions
from .source import Reading, Row


def read_csv_columns(source: Path, options: ImportOptions, progress: Progress) -> Reading:
    """Read the file, plain or gzip.

    Without ``options.columns`` every column must be named as a field. With it, only the columns that it names
    are read.
    """
    header = read_header(source)
    columns = _columns(source, header, options.columns)
    return Reading(
        files=(source,),
        rows=_rows(source, columns, progress),
        has_timestamps="timestamp" in columns,
        lists_controlnets="controlnets" in columns,
    )


def _columns(source: Path, header: Sequence[str], chosen: Mapping[str, str] | None) -> Mapping[str, str]:
    if chosen is None:
        for name in header:
            if name not in FIELDS:
                raise TraceError(
                    f"{source}:1: {unknown_name('column', name, FIELDS)}; say which columns mean what "
                    "with --columns, such as --columns timestamp=time,loras=lora_ids"
                )
        return {name: name for name in header}
    for field, column in chosen.items():
        if field not in FIELDS:
            raise ConfigError(f"--columns: {unknown_name('field', field, FIELDS)}")
        if column not in header:
            raise TraceError(f"{source}:1: {unknown_name('column', column, header)}")
    return chosen


def _rows(source: Path, columns: Mapping[str, str], progress: Progress) -> Iterator[Row]:
    for where, cells in read_rows(source, progress):
        yield request_from_fields({field: cells[column].strip() for field, column in columns.items()}, where)
