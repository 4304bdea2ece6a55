"""Reads CSV files row by row and checks their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import Progress, read_lines
from swiftdiff.validation import unknown_name

MAX_COLUMNS = 1000


def read_header(path: Path) -> list[str]:
    """Return the names of a CSV file's columns.

    Raises:
        TraceError: The file cannot be read or is empty, or its first line names no columns.
    """
    for _, cells in _cells(path, None):
        header = [cell.strip() for cell in cells]
        if len(header) > MAX_COLUMNS:
            raise TraceError(f"{path}:1: {len(header)} columns, but there must be at most {MAX_COLUMNS}")
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise TraceError(f"{path}:1: column {repeated[0]!r} is there more than once")
        return header
    raise TraceError(f"{path}: the file is empty; its first line must name the columns")


def read_rows(path: Path, progress: Progress | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place for errors, cells by column) for each row below the header; blank lines are skipped.

    Raises:
        TraceError: The file cannot be read, or a row has not as many cells as the header.
    """
    header: list[str] = []
    for where, cells in _cells(path, progress):
        if not header:
            header = [cell.strip() for cell in cells]
            continue
        if len(cells) != len(header):
            raise TraceError(f"{where}: {len(cells)} cells, but the header names {len(header)} columns")
        yield where, dict(zip(header, cells, strict=True))


def check_columns(path: Path, header: Sequence[str], known: Sequence[str]) -> None:
    """Check that a header has exactly the known columns, in any order.

    Raises:
        TraceError: A column is missing or unknown.
    """
    for name in header:
        if name not in known:
            raise TraceError(f"{path}:1: {unknown_name('column', name, known)}")
    for name in known:
        if name not in header:
            raise TraceError(f"{path}:1: column {name} is missing; there are: {', '.join(header)}")


def _cells(path: Path, progress: Progress | None) -> Iterator[tuple[str, list[str]]]:
    rows = csv.reader((line.decode() for _, line in read_lines(path, progress)), strict=True)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            message = f'not valid CSV: {error}; is a quote (") left open?'
            raise TraceError(f"{path}:{rows.line_num}: {message}") from error
        if cells is None:
            return
        if cells:
            yield f"{path}:{rows.line_num}", cells
