"""Owns a generated clip's folder: what lies in it, written so that a crash loses nothing that finished.

::

    config.toml        the world and how it was run, defaults written out
    environment.json   machine and software
    run.json           prompt, seed and steering: what the clip can be made again from
    blocks.jsonl       one record a block, appended as each finishes
    latents/           000000.npy and so on, what each block's pictures were decoded from, to go on from
    timeline.json      what lanes did when, for Perfetto or chrome://tracing
    frames/            000000.png and so on, written as each block finishes
    clip.gif           all frames; and clip.mp4 where ffmpeg was found
    summary.json       outcome and figures, written last
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.files import (
    append_line,
    cannot,
    check_free,
    drop_torn_line,
    read_lines,
    write_png,
    write_whole,
)
from swiftdiff.validation import StrictModel, describe
from swiftdiff.world.clip_request import ClipRequest
from swiftdiff.world.config import WorldConfig
from swiftdiff.world.config_file import load_world_config
from swiftdiff.world.decoding import Frames
from swiftdiff.world.profile import BlockTimes

Latents = NDArray[np.float32]

Outcome = Literal["complete", "interrupted", "stopped"]


class ClipInfo(StrictModel):
    """What ``run.json`` says.

    Attributes:
        request: What the clip is made from.
        model: The world's name.
        device: Where it computed.
        frames_per_block: Latent frames of a block.
        fps: Frames a second at which it is to be shown.
        started_at: ISO 8601, with time zone.
    """

    request: ClipRequest
    model: str
    device: str
    frames_per_block: int
    fps: float
    started_at: str


class BlockRecord(StrictModel):
    """A line of ``blocks.jsonl``.

    Attributes:
        block: Its number, from 0.
        prompt: What it was made with.
        first_frame: Number of its first picture.
        num_frames: How many it has.
        size: Their width and height.
        first_pixels_s: From asking for the block to its pixels.
        steps_s: Of each denoising step.
        decode_s: Of decoding it.
        commit_s: Of the pass that wrote the block before into the cache.
        overhead_s: What profiling took so far.
        cache_bytes: What keys and values take.
        finished_at_s: When its pictures were there, since the clip was begun; time between sessions is not
            counted.
    """

    block: int
    prompt: str
    first_frame: int
    num_frames: int
    size: tuple[int, int]
    first_pixels_s: float
    steps_s: tuple[float, ...]
    decode_s: float
    commit_s: float
    overhead_s: float
    cache_bytes: int
    finished_at_s: float

    @property
    def times(self) -> BlockTimes:
        """What the block took."""
        return BlockTimes(
            first_pixels_s=self.first_pixels_s,
            steps_s=self.steps_s,
            decode_s=self.decode_s,
            commit_s=self.commit_s,
            overhead_s=self.overhead_s,
        )


class ClipFolder:
    """A clip's folder on disk. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info_path = path / "run.json"
        self.config_path = path / "config.toml"
        self.frames_path = path / "frames"
        self.latents_path = path / "latents"
        self.gif_path = path / "clip.gif"
        self.mp4_path = path / "clip.mp4"
        self.records_path = path / "blocks.jsonl"
        self.timeline_path = path / "timeline.json"
        self.summary_path = path / "summary.json"

    @classmethod
    def create(cls, path: Path, config: str, info: ClipInfo, environment: str) -> ClipFolder:
        """Make the folder and write what is known before the first block.

        Args:
            path: Not there yet, or empty.
            config: Text of ``config.toml``.
            info: Of ``run.json``.
            environment: Text of ``environment.json``.

        Raises:
            StorageError: It holds something already, or cannot be written.
        """
        folder = cls(path)
        folder.check_free()
        try:
            folder.frames_path.mkdir(parents=True, exist_ok=True)
            folder.latents_path.mkdir(exist_ok=True)
            folder.records_path.touch()
        except OSError as error:
            raise cannot("make the folder", path, error) from error
        write_whole(folder.config_path, config.encode())
        write_whole(path / "environment.json", environment.encode())
        write_whole(folder.info_path, (info.model_dump_json(indent=2) + "\n").encode())
        return folder

    @classmethod
    def open(cls, path: Path) -> ClipFolder:
        """Take up a folder that `create` made.

        Raises:
            StorageError: It is no clip's folder.
        """
        folder = cls(path)
        if not folder.info_path.is_file():
            raise StorageError(f"{path} is no clip's folder: it has no {folder.info_path.name}")
        return folder

    def read_info(self) -> ClipInfo:
        """Return ``run.json``.

        Raises:
            StorageError: It cannot be read, or is no clip's.
        """
        try:
            return ClipInfo.model_validate_json(self.info_path.read_bytes())
        except OSError as error:
            raise cannot("read", self.info_path, error) from error
        except ValidationError as error:
            raise StorageError(
                f"{self.info_path} is no clip's, or an older version's: {describe(error, ClipInfo)}"
            ) from error

    def read_config(self) -> WorldConfig:
        """Return ``config.toml``.

        Raises:
            StorageError: It cannot be read or is damaged.
        """
        try:
            return load_world_config(self.config_path)
        except ConfigError as error:
            raise StorageError(str(error)) from error

    def check_free(self) -> None:
        """Raise StorageError if the folder exists and is not empty."""
        check_free(self.path, "clip" if self.info_path.is_file() else None)

    def add_block(self, record: BlockRecord, frames: Frames, latents: Latents) -> None:
        """Write a block's pictures and latents, then its record: what has a record is whole.

        Raises:
            StorageError: The disk takes no more.
        """
        for number, frame in enumerate(frames, start=record.first_frame):
            write_png(self.frame_path(number), Image.fromarray(frame))
        data = io.BytesIO()
        np.save(data, latents, allow_pickle=False)
        write_whole(self._latents_of(record.block), data.getvalue())
        append_line(self.records_path, record.model_dump_json())

    def frame_path(self, number: int) -> Path:
        """Return where a picture lies."""
        return self.frames_path / f"{number:06d}.png"

    def read_latents(self, block: int, shape: tuple[int, ...]) -> Latents:
        """Return what a block's pictures were decoded from, float32.

        Raises:
            StorageError: They cannot be read, or are not of this shape.
        """
        path = self._latents_of(block)
        try:
            latents = np.load(path, allow_pickle=False)
        except OSError as error:
            raise cannot("read", path, error) from error
        except (ValueError, EOFError) as error:
            raise StorageError(f"{path} is damaged: {error}") from error
        if latents.shape != shape or latents.dtype != np.float32 or not np.isfinite(latents).all():
            raise StorageError(f"{path} does not hold finite float32 of shape {list(shape)}")
        return np.asarray(latents, np.float32)

    def read_records(self) -> list[BlockRecord]:
        """Return the blocks' records; a torn last line, left by a crash, is passed over.

        Raises:
            StorageError: The file cannot be read, a line before the last is damaged, or a block is missing.
        """
        records: list[BlockRecord] = []
        for record, _ in read_lines(self.records_path, BlockRecord):
            if record.block != len(records):
                line = len(records) + 1
                raise StorageError(f"{self.records_path}:{line}: the record is of block {record.block}")
            records.append(record)
        return records

    def drop_torn_record(self) -> None:
        """Cut off a last line of the records that a crash left unfinished.

        Raises:
            StorageError: They are damaged elsewhere or cannot be written.
        """
        drop_torn_line(self.records_path, BlockRecord)

    def _latents_of(self, block: int) -> Path:
        return self.latents_path / f"{block:06d}.npy"
