"""Reads trace files of any format, plain or gzip, piece by piece, and says where one is damaged."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swiftdiff.errors import TraceError

MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_LINES_A_REPORT = 1 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"

Progress = Callable[[Path, int], None]
"""Told now and then how many of a file's bytes, as they lie on disk, are read."""


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a trace file for reading bytes.

    Raises:
        TraceError: It cannot be opened, or is a pipe.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            raise TraceError(f"cannot read trace {path}: a trace is read twice, so save it to a file first")
        file = path.open("rb")
    except OSError as error:
        raise TraceError(f"cannot read trace {path}: {error.strerror or error}") from error
    with file:
        yield file


def read_lines(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, UTF-8 line with its end) for all lines; a byte order mark is left out.

    Raises:
        TraceError: The file cannot be read, or a line is too long or not UTF-8; it names file and line.
    """
    with opened(path) as file:
        stream = _decompressed(file)
        number = 0
        while line := _read(stream, f"{path}:{number + 1}", lines=True):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                most = "the most that a request may have"
                raise TraceError(f"{where}: the line is longer than {MAX_LINE_BYTES} bytes, {most}")
            if number == 1:
                line = line.removeprefix(_BOM)
            if progress is not None and number % _LINES_A_REPORT == 0:
                progress(path, file.tell())
            _check_utf8(line, where)
            yield number, line


def read_chunks(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """Yield the bytes of a file, decompressed, about a quarter of a megabyte at a time.

    Raises:
        TraceError: The file cannot be read; all that comes before the damage has been given out.
    """
    with opened(path) as file:
        stream = _decompressed(file)
        done = 0
        damage: TraceError | None = None
        while damage is None:
            chunk, damage = _read_chunk(stream, path, done)
            if chunk:
                yield chunk if done else chunk.removeprefix(_BOM)
            elif damage is None:
                return
            done += len(chunk)
            if progress is not None:
                progress(path, file.tell())
        raise damage


def _read_chunk(
    stream: gzip.GzipFile | io.BufferedReader, path: Path, done: int
) -> tuple[bytes, TraceError | None]:
    """Return the next bytes, and what kept further ones from being read."""
    chunk = bytearray()
    try:
        while len(chunk) < _CHUNK_BYTES:
            piece = _read(stream, f"{path}, byte {done + len(chunk)}", lines=False)
            if not piece:
                break
            chunk += piece
    except TraceError as error:
        return bytes(chunk), error
    return bytes(chunk), None


def _decompressed(file: io.BufferedReader) -> gzip.GzipFile | io.BufferedReader:
    compressed = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if compressed else file


def _read(stream: gzip.GzipFile | io.BufferedReader, where: str, *, lines: bool) -> bytes:
    try:
        return stream.readline(MAX_LINE_BYTES + 1) if lines else stream.read1(_CHUNK_BYTES)
    except EOFError as error:
        raise TraceError(f"{where}: the gzip data ends here, unfinished; copy the file again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{where}: the gzip data is damaged here ({error}); copy the file again") from error
    except OSError as error:
        raise TraceError(f"{where}: cannot be read: {error.strerror or error}") from error


def _check_utf8(line: bytes, where: str) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise TraceError(f"{where}: not UTF-8 text: {bad}; save the trace as UTF-8") from error
