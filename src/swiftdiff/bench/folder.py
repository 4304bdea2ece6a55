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

from typing import ClassVar

from pydantic import BaseModel

from swiftdiff.bench.options import BenchOptions
from swiftdiff.bench.records import Measurement
from swiftdiff.engine.measurement_folder import MeasurementFolder
from swiftdiff.files import read_lines, read_model

ENVIRONMENT = "environment.json"


class BenchFolder(MeasurementFolder):
    """A benchmark's folder on disk. Make one with `create` or `open`."""

    what: ClassVar[str] = "benchmark"
    options_name: ClassVar[str] = "bench.json"
    row_type: ClassVar[type[BaseModel]] = Measurement

    def read_options(self) -> BenchOptions:
        """Return ``bench.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.path / self.options_name, BenchOptions)

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
