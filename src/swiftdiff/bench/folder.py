"""Owns a benchmark's folder: what lies in it, and that what was measured is on disk at once.

::

    bench.json         what is measured, by which it is resumed
    environment.json   machine, software and load at the start
    raw.jsonl          one line a served request
    controls/          control images
    requests-*.jsonl   the requests, as traces
    images/            every measured picture, to compare them
    report.md tables/  what the lines come to
    summary.json       the same for programs, written last
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ValidationError

from swiftdiff.bench.options import BenchOptions
from swiftdiff.bench.records import Measurement
from swiftdiff.errors import StorageError
from swiftdiff.files import append_line, read_lines, write_whole

ENVIRONMENT = "environment.json"
Options = TypeVar("Options", bound=BaseModel)


class BenchFolder:
    """A benchmark's folder on disk. Make one with `create` or `open`."""

    options_name: ClassVar[str] = "bench.json"  #: What tells one kind of benchmark from others

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_path = path / "raw.jsonl"

    @classmethod
    def create(cls, path: Path, options: BaseModel) -> Self:
        """Make the folder.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        folder = cls(path)
        try:
            occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
            if occupied:
                go_on = f"to go on with the benchmark in it: --resume {path}"
                hint = go_on if (path / cls.options_name).exists() else "name another"
                raise StorageError(f"--out {path} is not empty; {hint}")
            path.mkdir(parents=True, exist_ok=True)
            folder.raw_path.touch()
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder.write_text(cls.options_name, options.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take up a folder that `create` made; a last line that a crash left unfinished is cut off.

        Raises:
            StorageError: It is no benchmark's folder, or is damaged.
        """
        folder = cls(path)
        if not (path / cls.options_name).is_file():
            raise StorageError(f"{path} is no benchmark's folder: it has no {cls.options_name}")
        end = 0
        for _, line_end in read_lines(folder.raw_path, Measurement):
            end = line_end
        try:
            os.truncate(folder.raw_path, end)
        except OSError as error:
            raise StorageError(f"cannot repair {folder.raw_path}: {error.strerror or error}") from error
        return folder

    def read_options(self) -> BenchOptions:
        """Return ``bench.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return self._read_options(BenchOptions)

    def _read_options(self, kind: type[Options]) -> Options:
        path = self.path / self.options_name
        try:
            return kind.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            raise StorageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON object.

        Raises:
            StorageError: It cannot be read or is none.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise StorageError(f"{path} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise StorageError(f"{path} is damaged: it holds no object")
        return value

    def read_measurements(self) -> list[Measurement]:
        """Return what was recorded, in order; of several records of one key the last.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        last: dict[object, Measurement] = {}
        for measurement, _ in read_lines(self.raw_path, Measurement):
            key = (measurement.purpose, measurement.key)
            last.pop(key, None)
            last[key] = measurement
        return list(last.values())

    def append(self, measurement: Measurement) -> None:
        """Add a line at once, whole or not at all.

        Raises:
            StorageError: It cannot be written; what was written of it is taken back.
        """
        append_line(self.raw_path, measurement.model_dump_json(exclude_none=True))

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file whole or not at all; see `write_bytes`."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all; see `write_bytes`."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        write_whole(self.path / name, data)
