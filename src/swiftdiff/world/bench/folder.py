"""Owns the folder of a world's benchmark: what lies in it, and that what was measured is on disk at once.

::

    bench.json         what is measured, by which it is resumed
    environment.json   machine, software and load at the start of each session
    raw.jsonl          one line a measurement
    report.md tables/  what the lines come to, and whether it is enough
    summary.json       the same for programs, written last
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swiftdiff.errors import StorageError
from swiftdiff.files import append_line, read_lines, write_whole
from swiftdiff.validation import StrictModel
from swiftdiff.world.bench.options import Part, WorldBenchOptions

_OPTIONS = "bench.json"
ENVIRONMENT = "environment.json"

Key = tuple[Part, str, int]


class BenchRow(StrictModel):
    """One measurement.

    Attributes:
        part: What is measured.
        case: Which of those that take turns.
        repeat: Which one of the repeats, or of the seeds.
        seconds: That the measurement took.
        numbers: What was measured; the name says the unit.
        series: The same block by block, or chunk by chunk.
        started_at: ISO 8601, with time zone.
        load_1min: The machine's load average beforehand, the benchmark's own included.
        other_cpu_s: CPU seconds that other processes used meanwhile, the hypervisor's steal included.
    """

    part: Part
    case: str
    repeat: int
    seconds: float
    numbers: dict[str, float]
    series: dict[str, tuple[float, ...]]
    started_at: str
    load_1min: float
    other_cpu_s: float

    @property
    def key(self) -> Key:
        """What it measures; a later row of the same key replaces an earlier one."""
        return (self.part, self.case, self.repeat)


class WorldBenchFolder:
    """A benchmark's folder on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_path = path / "raw.jsonl"

    @classmethod
    def create(cls, path: Path, options: WorldBenchOptions) -> WorldBenchFolder:
        """Make the folder.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        folder = cls(path)
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                is_bench = (path / _OPTIONS).exists()
                hint = f"to go on with the benchmark in it: --resume {path}" if is_bench else "name another"
                raise StorageError(f"--out {path} is not empty; {hint}")
            path.mkdir(parents=True, exist_ok=True)
            folder.raw_path.touch()
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder.write_text(_OPTIONS, options.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> WorldBenchFolder:
        """Take up a folder that `create` made; a last line that a crash left unfinished is cut off.

        Raises:
            StorageError: It is no such folder, or is damaged.
        """
        folder = cls(path)
        if not (path / _OPTIONS).is_file():
            raise StorageError(f"{path} is no folder of swiftdiff world bench: it has no {_OPTIONS}")
        end = 0
        for _, line_end in read_lines(folder.raw_path, BenchRow):
            end = line_end
        try:
            os.truncate(folder.raw_path, end)
        except OSError as error:
            raise StorageError(f"cannot repair {folder.raw_path}: {error.strerror or error}") from error
        return folder

    def read_options(self) -> WorldBenchOptions:
        """Return ``bench.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        path = self.path / _OPTIONS
        try:
            return WorldBenchOptions.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            raise StorageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error

    def read_environment(self) -> dict[str, Any]:
        """Return ``environment.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        path = self.path / ENVIRONMENT
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} is missing or damaged: {error}") from error
        if not isinstance(value, dict):
            raise StorageError(f"{path} is damaged: it holds no object")
        return value

    def read_rows(self) -> list[BenchRow]:
        """Return what was recorded; of several rows of one key the last.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        return list({row.key: row for row, _ in read_lines(self.raw_path, BenchRow)}.values())

    def append(self, row: BenchRow) -> None:
        """Add a line at once, whole or not at all.

        Raises:
            StorageError: It cannot be written; what was written of it is taken back.
        """
        append_line(self.raw_path, row.model_dump_json())

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file whole or not at all; see `write_text`."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        write_whole(self.path / name, text.encode())
