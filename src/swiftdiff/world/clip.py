"""Owns the making of one clip into a folder: blocks as they finish, then GIF, MP4 and figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.engine.run_folder import write_whole
from swiftdiff.errors import SwiftdiffError
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.memory import peak_bytes_by_device, peak_host_bytes
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.telemetry.timeline_file import TimelineFile
from swiftdiff.world.clip_folder import BlockRecord, ClipFolder, ClipInfo, ClipRequest, Outcome
from swiftdiff.world.config import WorldConfig
from swiftdiff.world.config_file import to_toml
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.profile import BlockTimes, summarise
from swiftdiff.world.session import Block, WorldSession
from swiftdiff.world.writing import find_ffmpeg, write_gif, write_mp4


@dataclass(frozen=True)
class ClipEnded:
    """How the making of a clip ended.

    Attributes:
        folder: Where it is.
        outcome: ``complete``; ``interrupted``: by Ctrl-C; ``stopped``: a block failed or could not be
            written.
        summary: What ``summary.json`` says.
        reason: Why it stopped, or None.
        warnings: What could not be written beside the pictures.
    """

    folder: ClipFolder
    outcome: Outcome
    summary: dict[str, Any]
    reason: SwiftdiffError | None = None
    warnings: tuple[str, ...] = ()


def generate(
    model: WorldModel,
    config: WorldConfig,
    request: ClipRequest,
    out: Path,
    *,
    argv: list[str],
    on_block: Callable[[Block], None] | None = None,
) -> ClipEnded:
    """Make a clip into a new folder. Whatever ends it, what finished stays and is shown.

    Args:
        model: The world.
        config: How it is run.
        request: What the clip is made from.
        out: The folder: not there yet, or empty.
        argv: The command line, for ``environment.json``.
        on_block: Is told of each block that is on disk.

    Raises:
        SwiftdiffError: The folder is taken, a prompt or action means nothing to the model, or the memory
            budget fits no session. Later mistakes are in `ClipEnded`.
    """
    ClipFolder(out).check_free()
    for steer in request.steers:  # before there is a folder, and not in the middle of the clip
        model.prompts.encode(steer.text)
    began_s = time.perf_counter()
    timeline = Timeline(lambda: time.perf_counter() - began_s)
    info = ClipInfo(
        request=request,
        model=model.name,
        frames_per_block=model.settings.frames_per_block,
        fps=model.settings.fps,
        started_at=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    with (
        WorldEngine(model, config, timeline=timeline) as engine,
        engine.open(request.prompt, request.seed) as session,
    ):
        environment = json.dumps(describe_environment(argv), indent=2, ensure_ascii=False) + "\n"
        folder = ClipFolder.create(out, to_toml(config), info, environment)
        making = _Making(folder, request, session, timeline, on_block)
        making.run()
    return making.finish(info, cache_bytes=session.cache_bytes)


class _Making:
    """A clip under way."""

    def __init__(
        self,
        folder: ClipFolder,
        request: ClipRequest,
        session: WorldSession,
        timeline: Timeline,
        on_block: Callable[[Block], None] | None,
    ) -> None:
        self._folder = folder
        self._request = request
        self._session = session
        self._timeline = timeline
        self._on_block = on_block
        self._times: list[tuple[BlockTimes, int]] = []
        self._num_frames = 0
        self._size: tuple[int, int] | None = None
        self._outcome: Outcome = "complete"
        self._reason: SwiftdiffError | None = None
        self._warnings: list[str] = []

    def run(self) -> None:
        """Make all blocks, until Ctrl-C or a failure."""
        self._timeline.name_track("main")
        try:
            with Interrupts() as interrupts, TimelineFile(self._folder.timeline_path, self._timeline) as file:
                try:
                    for index in range(self._request.num_blocks):
                        self._steer(index)
                        block = self._session.next_block()
                        with interrupts.hold():
                            self._keep(block)
                            file.flush()
                        if self._on_block is not None:
                            self._on_block(block)
                finally:
                    self._session.close()  # its lanes note nothing more, so that the timeline has it all
        except KeyboardInterrupt:
            self._outcome = "interrupted"
        except SwiftdiffError as error:
            self._outcome, self._reason = "stopped", error

    def finish(self, info: ClipInfo, cache_bytes: int) -> ClipEnded:
        """Write GIF, MP4 and the summary of what there is."""
        folder = self._folder
        if self._times:
            frames = [folder.frame_path(number) for number in range(self._num_frames)]
            self._try(lambda: write_gif(folder.gif_path, frames, info.fps))
            ffmpeg = find_ffmpeg()
            if ffmpeg is not None:
                self._try(lambda: write_mp4(folder.mp4_path, frames, info.fps, ffmpeg))
        summary = self._summarise(info, cache_bytes)
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        self._try(lambda: write_whole(folder.summary_path, text.encode()))
        return ClipEnded(folder, self._outcome, summary, self._reason, tuple(self._warnings))

    def _steer(self, index: int) -> None:
        for steer in self._request.steers:
            if steer.block == index:
                self._session.steer(steer.text, steer.blocks)

    def _keep(self, block: Block) -> None:
        times = block.times
        if times is None:
            raise RuntimeError("a clip is made by an engine that profiles")
        began_s = self._timeline.now()
        record = BlockRecord(
            block=block.index,
            prompt=block.prompt,
            first_frame=self._num_frames,
            num_frames=len(block.frames),
            cache_bytes=self._session.cache_bytes,
            **asdict(times),
        )
        self._folder.add_block(record, block.frames)
        self._times.append((times, len(block.frames)))
        self._num_frames += len(block.frames)
        self._size = (block.frames.shape[2], block.frames.shape[1])
        self._timeline.add("write_frames", began_s, self._timeline.now(), {"block": block.index})

    def _summarise(self, info: ClipInfo, cache_bytes: int) -> dict[str, Any]:
        return {
            "outcome": self._outcome,
            "reason": None if self._reason is None else str(self._reason),
            "model": info.model,
            "prompt": info.request.prompt,
            "seed": info.request.seed,
            "asked_blocks": info.request.num_blocks,
            "num_blocks": len(self._times),
            "num_frames": self._num_frames,
            "size": None if self._size is None else list(self._size),
            "clip_fps": info.fps,
            **(asdict(summarise(self._times)) if self._times else {}),
            "cache_bytes": cache_bytes,
            "peak_host_bytes": peak_host_bytes(),
            "peak_bytes_by_device": peak_bytes_by_device(),
        }

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except SwiftdiffError as error:  # the pictures are there; without an MP4, say, they still can be seen
            self._warnings.append(str(error))
