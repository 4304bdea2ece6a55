"""Owns a run's folder: what lies in it, and how it is written so that a crash loses nothing that finished.

::

    config.toml        the system, defaults written out
    environment.json   machine and software
    run.json           trace and its SHA-256, load, limits: what makes two runs comparable
    adapters.json      what each adapter id of the trace was served as, if they were mapped (--adapters)
    requests.jsonl     one record a request, appended as each finishes
    sessions.jsonl     one line each time the run was worked on: once, or more with --resume
    timeline.json      what lanes, loaders and the server did when, for Perfetto or chrome://tracing
    images/            <request_id>-<index>.png; those of warm-up requests in images/warmup/
    tables/ plots/ report.md summary.json   written by the report, summary.json last
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from swiftdiff.adapters.mapping import AdapterMapping
from swiftdiff.config import ServingConfig, load_config
from swiftdiff.engine.run_info import RunInfo, Session
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.files import (
    append_line,
    cannot,
    check_free,
    drop_torn_line,
    parse_line,
    read_lines,
    read_model,
    write_png,
    write_whole,
)
from swiftdiff.request import ImageRequest, RequestRecord


class Described(Protocol):
    """What serves a run: a system's config, or the server that requests were sent to."""

    def to_toml(self) -> str:
        """Return the text of ``config.toml``."""
        ...


class RunFolder:
    """A run's folder on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records_path = path / "requests.jsonl"
        self.info_path = path / "run.json"
        self.mapping_path = path / "adapters.json"
        self.summary_path = path / "summary.json"
        self.timeline_path = path / "timeline.json"

    @classmethod
    def create(
        cls,
        path: Path,
        config: Described,
        info: RunInfo,
        environment: dict[str, Any],
        mapping: AdapterMapping | None = None,
    ) -> RunFolder:
        """Make the folder and write what is known before the first request.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        folder = cls(path)
        folder.check_free()
        try:
            (path / "images").mkdir(parents=True)
        except OSError as error:
            raise cannot("make the run folder", path, error) from error
        folder.write_text("config.toml", config.to_toml())
        folder.write_json("environment.json", environment)
        if mapping is not None:
            folder.write_text(folder.mapping_path.name, mapping.model_dump_json(indent=2) + "\n")
        folder.records_path.touch()
        folder.write_text("run.json", info.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Take up a folder that `create` made.

        Raises:
            StorageError: It is no run's folder.
        """
        folder = cls(path)
        if not folder.info_path.is_file():
            raise StorageError(f"{path} is no run's folder: it has no run.json")
        return folder

    def check_free(self) -> None:
        """Raise StorageError if the folder exists and is not empty."""
        check_free(self.path, "run" if self.info_path.exists() else None)

    def read_info(self) -> RunInfo:
        """Return ``run.json``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        return read_model(self.info_path, RunInfo)

    def read_mapping(self) -> AdapterMapping | None:
        """Return ``adapters.json``, None if the run's adapters were not mapped.

        Raises:
            StorageError: It cannot be read, is damaged, or is not what the run began with.
        """
        expected = self.read_info().mapped_adapters
        if expected is None:
            return None
        mapping = read_model(self.mapping_path, AdapterMapping)
        if mapping.sha256 != expected.sha256:
            raise StorageError(f"{self.mapping_path} is not the mapping that the run began with")
        return mapping

    def read_config(self) -> ServingConfig:
        """Return ``config.toml``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        try:
            return load_config(self.path / "config.toml")
        except ConfigError as error:
            raise StorageError(str(error)) from error

    def read_records(self) -> Iterator[RequestRecord]:
        """Yield the records, one at a time; a torn last line, left by a crash, is passed over.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        for record, _ in read_lines(self.records_path, RequestRecord):
            yield record

    def read_progress(self) -> tuple[set[str], float]:
        """Return the ids that have a record, warm-ups apart, and when the last request of all ended.

        Raises:
            StorageError: See `read_records`.
        """
        done: set[str] = set()
        end_s = 0.0
        for record in self.read_records():
            end_s = max(end_s, record.finished_at_s)
            if not record.warmup:
                done.add(record.request_id)
        return done, end_s

    def read_sessions(self) -> list[Session]:
        """Return the sessions so far; none if the first has not ended."""
        path = self.path / "sessions.jsonl"
        if not path.exists():
            return []
        sessions = (parse_line(Session, line) for line in path.read_bytes().splitlines())
        return [session for session in sessions if session is not None]

    def append_session(self, session: Session) -> None:
        """Add a line to ``sessions.jsonl``.

        Raises:
            StorageError: It cannot be written.
        """
        append_line(self.path / "sessions.jsonl", session.model_dump_json())

    def append_record(self, record: RequestRecord) -> None:
        """Add a record at once, whole or not at all.

        Raises:
            StorageError: It cannot be written; what was written of it is taken back.
        """
        append_line(self.records_path, record.model_dump_json(exclude_none=True))

    def drop_torn_record(self) -> None:
        """Cut off a last line that a crash left unfinished.

        Raises:
            StorageError: The file is damaged elsewhere or cannot be written.
        """
        drop_torn_line(self.records_path, RequestRecord)

    def save_images(self, request: ImageRequest, images: list[Image], *, warmup: bool) -> tuple[str, ...]:
        """Write a request's pictures as PNG and return their paths relative to the folder.

        Raises:
            StorageError: One cannot be written; no part of it is left.
        """
        below = "images/warmup" if warmup else "images"
        names = tuple(f"{below}/{request.request_id}-{index}.png" for index in range(len(images)))
        for name, image in zip(names, images, strict=True):
            write_png(self.path / name, image)
        return names

    def append_traceback(self, text: str) -> None:
        """Add an unexpected error's traceback to ``errors.log``, as far as the disk allows."""
        try:
            with (self.path / "errors.log").open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError:
            return

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file whole or not at all; see `write_text`."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all.

        Raises:
            StorageError: It cannot be written.
        """
        write_whole(self.path / name, text.encode())
