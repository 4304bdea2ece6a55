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

import json
import os
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from swiftdiff.compare.sweep_k_options import SweepOptions
from swiftdiff.errors import StorageError
from swiftdiff.files import PNG_COMPRESS_LEVEL, append_line, read_lines, write_whole
from swiftdiff.validation import StrictModel

_OPTIONS = "sweep.json"
_SUBJECT = "subject.json"
ENVIRONMENT = "environment.json"

_Model = TypeVar("_Model", bound=StrictModel)

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


class SweepFolder:
    """A sweep's folder on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw_path = path / "raw.jsonl"

    @classmethod
    def create(cls, path: Path, options: SweepOptions) -> SweepFolder:
        """Make the folder.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        folder = cls(path)
        folder.check_free()
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.raw_path.touch()
        except OSError as error:
            raise StorageError(f"cannot make {path}: {error.strerror or error}") from error
        folder.write_text(_OPTIONS, options.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> SweepFolder:
        """Take up a folder that `create` made; a last line that a crash left unfinished is cut off.

        Raises:
            StorageError: It is no sweep's folder, or is damaged.
        """
        folder = cls(path)
        if not (path / _OPTIONS).is_file():
            raise StorageError(f"{path} is no folder of swiftdiff sweep-k: it has no {_OPTIONS}")
        end = 0
        for _, line_end in read_lines(folder.raw_path, SweepRecord):
            end = line_end
        try:
            os.truncate(folder.raw_path, end)
        except OSError as error:
            raise StorageError(f"cannot repair {folder.raw_path}: {error.strerror or error}") from error
        return folder

    def check_free(self) -> None:
        """Raise StorageError if the folder exists and is not empty."""
        try:
            occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise StorageError(f"cannot look into {self.path}: {error.strerror or error}") from error
        if occupied:
            go_on = f"to go on with the sweep in it: --resume {self.path}"
            hint = go_on if (self.path / _OPTIONS).exists() else "name another"
            raise StorageError(f"--out {self.path} is not empty; {hint}")

    def read_options(self) -> SweepOptions:
        """Return ``sweep.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return self._read(_OPTIONS, SweepOptions)

    def read_subject(self) -> Subject | None:
        """Return ``subject.json``, None if there is none yet.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return self._read(_SUBJECT, Subject) if (self.path / _SUBJECT).exists() else None

    def write_subject(self, subject: Subject) -> None:
        """Write ``subject.json``; see `write_text`."""
        self.write_text(_SUBJECT, subject.model_dump_json(indent=2) + "\n")

    def read_records(self) -> list[SweepRecord]:
        """Return what was recorded; of several records of one key the last.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        return list({record.key: record for record, _ in read_lines(self.raw_path, SweepRecord)}.values())

    def append(self, record: SweepRecord) -> None:
        """Add a line at once, whole or not at all.

        Raises:
            StorageError: It cannot be written; what was written of it is taken back.
        """
        append_line(self.raw_path, record.model_dump_json(exclude_none=True))

    def save_picture(self, name: str, picture: Image.Image) -> None:
        """Write a picture as PNG whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        path = self.path / name
        partial = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(partial, format="png", compress_level=PNG_COMPRESS_LEVEL)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from error

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

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file; see `write_text`."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        write_whole(self.path / name, text.encode())

    def _read(self, name: str, model: type[_Model]) -> _Model:
        path = self.path / name
        try:
            return model.model_validate_json(path.read_bytes())
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValidationError as error:
            raise StorageError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
