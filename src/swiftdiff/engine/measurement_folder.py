"""Owns the folder of a measurement that can be resumed: what is asked for, and a line for each result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from swiftdiff.errors import StorageError
from swiftdiff.files import append_line, cannot, check_free, drop_torn_line, write_whole


class MeasurementFolder:
    """A measurement's folder on disk. Make one with `create` or `open`.

    Attributes:
        what: The measurement, in messages.
        options_name: The file with what is measured; it tells one kind of measurement from others.
        row_type: What a line of ``raw.jsonl`` holds.
    """

    what: ClassVar[str]
    options_name: ClassVar[str]
    row_type: ClassVar[type[BaseModel]]

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
        folder.check_free()
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.raw_path.touch()
        except OSError as error:
            raise cannot("make", path, error) from error
        folder.write_text(cls.options_name, options.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take up a folder that `create` made; a last line that a crash left unfinished is cut off.

        Raises:
            StorageError: It is none of this kind, or is damaged.
        """
        folder = cls(path)
        if not (path / cls.options_name).is_file():
            raise StorageError(f"{path} is no {cls.what}'s folder: it has no {cls.options_name}")
        drop_torn_line(folder.raw_path, cls.row_type)
        return folder

    def check_free(self) -> None:
        """Raise StorageError if the folder exists and is not empty."""
        check_free(self.path, self.what if (self.path / self.options_name).exists() else None)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON object.

        Raises:
            StorageError: It cannot be read or is none.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except OSError as error:
            raise cannot("read", path, error) from error
        except ValueError as error:
            raise StorageError(f"{path} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise StorageError(f"{path} is damaged: it holds no object")
        return value

    def append(self, row: BaseModel) -> None:
        """Add a line at once, whole or not at all.

        Raises:
            StorageError: It cannot be written; what was written of it is taken back.
        """
        append_line(self.raw_path, row.model_dump_json(exclude_none=True))

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
