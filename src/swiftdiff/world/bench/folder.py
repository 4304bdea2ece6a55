"""Owns the folder of a world's benchmark: what lies in it, and that what was measured is on disk at once.

::

    bench.json         what is measured, by which it is resumed
    environment.json   machine, software and load at the start of each session
    raw.jsonl          one line a measurement
    report.md tables/  what the lines come to, and whether it is enough
    summary.json       the same for programs, written last
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from swiftdiff.engine.measurement_folder import MeasurementFolder
from swiftdiff.files import read_lines, read_model
from swiftdiff.validation import StrictModel
from swiftdiff.world.bench.options import Part, WorldBenchOptions

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


class WorldBenchFolder(MeasurementFolder):
    """A benchmark's folder on disk. Make one with `create` or `open`."""

    what: ClassVar[str] = "benchmark"
    options_name: ClassVar[str] = "bench.json"
    row_type: ClassVar[type[BaseModel]] = BenchRow

    def read_options(self) -> WorldBenchOptions:
        """Return ``bench.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.path / self.options_name, WorldBenchOptions)

    def read_rows(self) -> list[BenchRow]:
        """Return what was recorded; of several rows of one key the last.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        return list({row.key: row for row, _ in read_lines(self.raw_path, BenchRow)}.values())
