"""Owns a generated clip's folder: what lies in it, written so that a crash loses nothing that finished.

::

    config.toml        the world and how it was run, defaults written out
    environment.json   machine and software
    run.json           prompt, seed and steering: what the clip can be made again from
    blocks.jsonl       one record a block, appended as each finishes
    timeline.json      what lanes did when, for Perfetto or chrome://tracing
    frames/            000000.png and so on, written as each block finishes
    clip.gif           all frames; and clip.mp4 where ffmpeg was found
    summary.json       outcome and figures, written last
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.files import append_line, read_lines, write_whole
from swiftdiff.validation import StrictModel, describe
from swiftdiff.world.decoding import Frames
from swiftdiff.world.writing import write_png

Outcome = Literal["complete", "interrupted", "stopped"]


class Steer(StrictModel):
    """A change of prompt in a clip.

    Attributes:
        block: The first block that is made with it, from 1.
        text: A prompt, or an action that the model knows.
        blocks: How many blocks; None is all further ones.
    """

    block: Annotated[int, Field(ge=1)]
    text: Annotated[str, Field(min_length=1)]
    blocks: Annotated[int, Field(ge=1)] | None = None


class ClipRequest(StrictModel):
    """What a clip is made from.

    Attributes:
        prompt: Of the first block, and of those after it until steered.
        num_blocks: How long it is.
        seed: Of the noise.
        steers: Changes of the prompt.
    """

    prompt: Annotated[str, Field(min_length=1)]
    num_blocks: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    steers: tuple[Steer, ...] = ()

    @model_validator(mode="after")
    def _check_that_steers_are_in_the_clip(self) -> Self:
        late = [steer.block for steer in self.steers if steer.block >= self.num_blocks]
        if late:
            raise ValueError(f"steers of blocks below {self.num_blocks}, and not of block {late[0]}")
        return self


class ClipInfo(StrictModel):
    """What ``run.json`` says.

    Attributes:
        request: What the clip is made from.
        model: The world's name.
        frames_per_block: Latent frames of a block.
        fps: Frames a second at which it is to be shown.
        started_at: ISO 8601, with time zone.
    """

    request: ClipRequest
    model: str
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
        first_pixels_s: From asking for the block to its pixels.
        steps_s: Of each denoising step.
        decode_s: Of decoding it.
        commit_s: Of the pass that wrote the block before into the cache.
        overhead_s: What profiling took so far.
        cache_bytes: What keys and values take.
    """

    block: int
    prompt: str
    first_frame: int
    num_frames: int
    first_pixels_s: float
    steps_s: tuple[float, ...]
    decode_s: float
    commit_s: float
    overhead_s: float
    cache_bytes: int


class ClipFolder:
    """A clip's folder on disk. Make one with `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames_path = path / "frames"
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
            folder.records_path.touch()
        except OSError as error:
            raise StorageError(f"cannot make the folder {path}: {error.strerror or error}") from error
        write_whole(path / "config.toml", config.encode())
        write_whole(path / "environment.json", environment.encode())
        write_whole(path / "run.json", (info.model_dump_json(indent=2) + "\n").encode())
        return folder

    def check_free(self) -> None:
        """Raise StorageError if the folder exists and is not empty."""
        try:
            occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise StorageError(f"cannot look into {self.path}: {error.strerror or error}") from error
        if occupied:
            raise StorageError(f"--out {self.path} is not empty; name another")

    def add_block(self, record: BlockRecord, frames: Frames) -> None:
        """Write a block's pictures, then its record: what has a record is whole.

        Raises:
            StorageError: The disk takes no more.
        """
        for number, frame in enumerate(frames, start=record.first_frame):
            write_png(self.frame_path(number), frame)
        append_line(self.records_path, record.model_dump_json())

    def frame_path(self, number: int) -> Path:
        """Return where a picture lies."""
        return self.frames_path / f"{number:06d}.png"

    def read_records(self) -> Iterator[BlockRecord]:
        """Yield the blocks' records; a torn last line, left by a crash, is passed over.

        Raises:
            StorageError: The file cannot be read, or a line before the last is damaged.
        """
        for record, _ in read_lines(self.records_path, BlockRecord):
            yield record


def parse_request(**values: Any) -> ClipRequest:
    """Return a request made of a command's options.

    Raises:
        ConfigError: One of them is wrong.
    """
    try:
        return ClipRequest.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, ClipRequest)) from error


def parse_steer(text: str, *, is_action: bool) -> Steer:
    """Return the change of prompt that ``BLOCK:TEXT`` or ``FIRST-LAST:TEXT`` describes.

    Args:
        text: As it was written. A single block is where an action happens, or where a prompt begins.
        is_action: Whether the model's prompts are actions of one block each.

    Raises:
        ConfigError: It has another form, or the blocks are not 1 or more and rising.
    """
    where, colon, wanted = text.partition(":")
    first, dash, last = where.strip().partition("-")
    numbers = [first, last] if dash else [first]
    if not colon or not wanted.strip() or not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError.for_field("--steer", text, 'BLOCK:TEXT or FIRST-LAST:TEXT, such as "5:push left"')
    begin = int(first)
    end = int(last) if dash else begin if is_action else None
    if begin < 1 or (end is not None and end < begin):
        raise ConfigError.for_field(
            "--steer", text, "of rising blocks from 1 on: block 0 is made with PROMPT"
        )
    return Steer(block=begin, text=wanted.strip(), blocks=None if end is None else end - begin + 1)
