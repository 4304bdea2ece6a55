"""Owns the access log: a JSON line for each request, on the disk before the request is answered."""

from __future__ import annotations

import fcntl
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from swiftdiff.errors import StorageError
from swiftdiff.request import RequestRecord
from swiftdiff.server.schema import EngineName
from swiftdiff.validation import StrictModel


class AccessRecord(StrictModel):
    """One request, served or refused.

    Attributes:
        at: When it ended, ISO 8601 in UTC.
        request_id: Its id, which the response names too.
        http_status: Of the answer; 499 if the client went away before there was one.
        code: Kind of the error, or None.
        engine: That it asked for, or None.
        batch_size: Requests that were served as one with it, itself included.
        record: How it was served; None if it was refused before it could wait. Its stages lack ``restore``,
            which comes after the answer, and its moments count from the server's start.
    """

    at: str
    request_id: str
    http_status: int
    code: str | None = None
    engine: EngineName | None = None
    batch_size: int = 1
    record: RequestRecord | None = None


class AccessLog:
    """Appends records on a thread of its own: those that come together share one ``fsync``.

    Args:
        path: The file; its folder is made. A line that a crash left unfinished is cut off. None writes none.
        max_bytes: Size at which it becomes ``<name>.1``, the last ``.1`` becoming ``.2``, and so on.
        max_files: Old files that are kept.

    Raises:
        StorageError: It cannot be written, or another server writes it.
    """

    def __init__(self, path: Path | None, *, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._queue: SimpleQueue[tuple[bytes, Future[None]] | None] = SimpleQueue()
        self._file = -1 if path is None else _open(path)
        self._writer = threading.Thread(target=self._run, name="access log", daemon=True)
        self._writer.start()

    def submit(self, record: AccessRecord) -> Future[None]:
        """Append a record; the future ends when it is on the disk, with StorageError if it cannot be."""
        future: Future[None] = Future()
        self._queue.put((record.model_dump_json(exclude_none=True).encode() + b"\n", future))
        return future

    def close(self) -> None:
        """Write what is left and give the file back."""
        self._queue.put(None)
        self._writer.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            batch, is_last = self._gather(entry)
            error = self._append(b"".join(line for line, _ in batch))
            for _, future in batch:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
            if is_last:
                return

    def _gather(self, first: tuple[bytes, Future[None]]) -> tuple[list[tuple[bytes, Future[None]]], bool]:
        """Return what has come by now, and whether nothing more will."""
        batch = [first]
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch, False
            if entry is None:
                return batch, True
            batch.append(entry)

    def _append(self, data: bytes) -> StorageError | None:
        if self._path is None:
            return None
        try:
            size = os.lseek(self._file, 0, os.SEEK_END)
            if size and size + len(data) > self._max_bytes:
                self._rotate(self._path)
                size = 0
            try:
                if os.write(self._file, data) != len(data):
                    raise OSError("only a part could be written; is the disk full?")
                os.fsync(self._file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._file, size)
                raise
        except (OSError, StorageError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return StorageError(f"cannot append to access log {self._path}: {reason}")
        return None

    def _rotate(self, path: Path) -> None:
        for number in range(self._max_files, 0, -1):
            older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number}"))
        fresh = _open(path)
        os.close(self._file)
        self._file = fresh


def _open(path: Path) -> int:
    """Return a file to append to, locked, without an unfinished last line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StorageError(f"cannot write access log {path}: {error.strerror or error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise StorageError(f"another server writes access log {path}: name another file") from error
    end = _end_of_whole_lines(file)
    if end != os.lseek(file, 0, os.SEEK_END):
        os.ftruncate(file, end)
    return file


def _end_of_whole_lines(file: int) -> int:
    end = os.lseek(file, 0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - 65536)
        newline = os.pread(file, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
