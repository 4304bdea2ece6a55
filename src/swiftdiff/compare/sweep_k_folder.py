"""Owns the folder of a sweep of k: what lies in it, and that what was measured is on disk at once.

::

    sweep.json         what is measured, by which it is resumed
    environment.json   machine and software
    subject.json       SHA-256 of the model's weights and of the LoRAs' files
    raw.jsonl          one line a served request
    images/            <lora>/k<k>-<request>.png
    report.md report.html tables/ frontier.png
    bal-table.toml     what bal_k = "auto" reads
    summary.json       the same for programs, written last
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from swiftdiff.compare.sweep_k_options import SweepOptions
from swiftdiff.engine.measurement_folder import MeasurementFolder
from swiftdiff.errors import StorageError
from swiftdiff.files import read_lines, read_model, write_png
from swiftdiff.validation import StrictModel

_SUBJECT = "subject.json"
ENVIRONMENT = "environment.json"

Part = Literal["quality", "latency"]
Key = tuple[Part, str, int, int]


class Subject(StrictModel):
    """What was measured: it must be the same when a sweep is resumed.

    Attributes:
        weights_sha256: Of the model's.
        lora_sha256: Of the LoRAs' files, by id; without those that could not be read.
    """

    weights_sha256: str
    lora_sha256: dict[str, str]


class SweepRecord(StrictModel):
    """One served request. Fields that end in ``_s`` are seconds.

    Attributes:
        part: ``quality``: the LoRA came just before step k; ``latency``: it took its load time.
        lora: Its id.
        k: The bound.
        index: Of the prompt, or of the repeat.
        error: Why it failed, or None; then the numbers are missing.
        step_patched: First step with the LoRA.
        latency_s: From arrival to picture; it says nothing in the part ``quality``.
        wait_s: Of that, standing still for the LoRA.
        restore_s: Taking the LoRA out again.
        load_s: From arrival until the LoRA was ready.
        picture: Its file below the sweep's folder.
        style: Style score, 0 to 1; None where it cannot be judged.
        attributes: Attribute score, 0 to 1; None where it cannot be judged.
        ssim: Structural similarity with the picture at k = 0.
        mean_square: Mean squared difference from that, in squared levels of 255.
        mean_levels: Mean difference, in levels.
        max_levels: Largest difference, in levels.
    """

    part: Part
    lora: str
    k: int
    index: int
    error: str | None = None
    step_patched: int | None = None
    latency_s: float | None = None
    wait_s: float | None = None
    restore_s: float | None = None
    load_s: float | None = None
    picture: str | None = None
    style: float | None = None
    attributes: float | None = None
    ssim: float | None = None
    mean_square: float | None = None
    mean_levels: float | None = None
    max_levels: int | None = None

    @property
    def key(self) -> Key:
        """What it measures."""
        return (self.part, self.lora, self.k, self.index)


class SweepFolder(MeasurementFolder):
    """A sweep's folder on disk. Make one with `create` or `open`."""

    what: ClassVar[str] = "sweep"
    options_name: ClassVar[str] = "sweep.json"
    row_type: ClassVar[type[BaseModel]] = SweepRecord

    def read_options(self) -> SweepOptions:
        """Return ``sweep.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.path / self.options_name, SweepOptions)

    def read_subject(self) -> Subject | None:
        """Return ``subject.json``, None if there is none yet.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        path = self.path / _SUBJECT
        return read_model(path, Subject) if path.exists() else None

    def write_subject(self, subject: Subject) -> None:
        """Write ``subject.json``; see `write_text`."""
        self.write_text(_SUBJECT, subject.model_dump_json(indent=2) + "\n")

    def read_records(self) -> list[SweepRecord]:
        """Return what was recorded; of several records of one key the last.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        return list({record.key: record for record, _ in read_lines(self.raw_path, SweepRecord)}.values())

    def save_picture(self, name: str, picture: Image.Image) -> None:
        """Write a picture as PNG whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        write_png(self.path / name, picture)

    def read_picture(self, name: str) -> NDArray[np.uint8]:
        """Return a picture, uint8 [H, W, 3].

        Raises:
            StorageError: It cannot be read.
        """
        path = self.path / name
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise StorageError(f"cannot read {path}: {error}") from error
