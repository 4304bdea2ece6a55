"""One line of JSON for each judged picture, appended once it is drawn, so that nothing is drawn twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from swiftdiff.errors import StorageError


class ObjectMarks(BaseModel):
    """What a picture gets right of one named object; None where a style shows no colours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: str
    shape: str
    size: str
    colour_right: bool | None
    shape_right: bool
    size_right: bool


class PictureRecord(BaseModel):
    """A judged picture: how it was drawn (`key`, `set`, `index`), where it lies and what was measured.

    `key` changes with the weights and with every option that changes a picture: so stale lines are known.
    With a LoRA, objects are judged in its style, background and count are not, and `rendered_objects` says
    what the judge makes of the style's own rendering of the same scene: more cannot be reached.
    `adherence` maps a kind of control image to the measure against it, `style` is the classifier's answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    set: str
    index: int
    seed: int
    prompt: str
    picture: str
    objects: tuple[ObjectMarks, ...]
    relation_right: bool
    background_right: bool | None
    count_right: bool | None
    all_right: bool
    rendered_objects: tuple[ObjectMarks, ...] = ()
    adherence: dict[str, float] = {}
    style: str
    style_probability: float


class RecordFile:
    """The JSONL file of an evaluation; a line cut off by a crash is ignored, and its picture drawn again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[PictureRecord]:
        """All whole records in the order of writing.

        Raises:
            StorageError: The file cannot be read.
        """
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error.strerror or error}") from error
        records = []
        for line in lines:
            try:
                records.append(PictureRecord.model_validate_json(line))
            except ValidationError:
                continue
        return records

    def append(self, records: Iterable[PictureRecord]) -> None:
        """Write records to the end of the file.

        Raises:
            StorageError: The file cannot be written.
        """
        text = "".join(json.dumps(record.model_dump(), sort_keys=False) + "\n" for record in records)
        try:
            with self._path.open("ab+") as file:
                is_torn = False
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    is_torn = file.read(1) != b"\n"
                file.write(("\n" + text if is_torn else text).encode())
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
