"""Owns a clip under way: makes the blocks that its folder lacks, and writes what can be shown of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from swiftdiff.engine.interrupt import Interrupts
from swiftdiff.errors import ModelError, SwiftdiffError
from swiftdiff.files import write_whole
from swiftdiff.telemetry.memory import peak_bytes_by_device, peak_host_bytes
from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.telemetry.timeline_file import TimelineFile
from swiftdiff.world.clip_folder import BlockRecord, ClipFolder, ClipInfo, Latents, Outcome
from swiftdiff.world.profile import BlockTimes, summarise
from swiftdiff.world.session import Block, WorldSession
from swiftdiff.world.writing import find_ffmpeg, write_gif, write_mp4

# Latents are of about unit variance. Arithmetic of another machine moves a block by far less than this.
_OTHER_MODEL = 0.1


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


class Making:
    """A clip under way.

    Args:
        folder: Where it is.
        info: What it is.
        records: Of the blocks that are there already.
        on_block: Is told of each further one that is on disk.
        on_restored: Is told how many finished blocks are restored, and of how many.
    """

    def __init__(
        self,
        folder: ClipFolder,
        info: ClipInfo,
        records: list[BlockRecord],
        *,
        on_block: Callable[[Block], None] | None = None,
        on_restored: Callable[[int, int], None] | None = None,
    ) -> None:
        self._folder = folder
        self._info = info
        self._records = list(records)
        self._on_block = on_block
        self._on_restored = on_restored
        self._overhead_before_s = 0.0
        self._outcome: Outcome = "complete"
        self._reason: SwiftdiffError | None = None
        self._warnings: list[str] = []

    @property
    def spent_s(self) -> float:
        """Seconds that the blocks took which are there; time between sessions is not counted."""
        return self._records[-1].finished_at_s if self._records else 0.0

    def run(self, session: WorldSession, block_shape: tuple[int, ...], timeline: Timeline) -> None:
        """Make all blocks that are missing, until Ctrl-C or a failure.

        Args:
            session: New; closed when this returns.
            block_shape: Of a block's latents.
            timeline: The session's; its clock goes on from `spent_s`.
        """
        timeline.name_track("main")
        try:
            with Interrupts() as interrupts, TimelineFile(self._folder.timeline_path, timeline) as file:
                try:
                    if self._records:
                        self._restore(session, block_shape)
                    for index in range(len(self._records), self._info.request.num_blocks):
                        self._steer(session, index)
                        block = session.next_block()
                        with interrupts.hold():
                            self._keep(block, session, timeline)
                            file.flush()
                        if self._on_block is not None:
                            self._on_block(block)
                finally:
                    session.close()  # its lanes note nothing more, so that the timeline has it all
        except KeyboardInterrupt:
            self._outcome = "interrupted"
        except SwiftdiffError as error:
            self._outcome, self._reason = "stopped", error

    def finish(self) -> ClipEnded:
        """Write GIF, MP4 and the summary of what there is."""
        folder, info = self._folder, self._info
        if self._records:
            frames = [folder.frame_path(number) for number in range(self._num_frames)]
            self._try(lambda: write_gif(folder.gif_path, frames, info.fps))
            ffmpeg = find_ffmpeg()
            if ffmpeg is not None:
                self._try(lambda: write_mp4(folder.mp4_path, frames, info.fps, ffmpeg))
        summary = self._summarise()
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        self._try(lambda: write_whole(folder.summary_path, text.encode()))
        return ClipEnded(folder, self._outcome, summary, self._reason, tuple(self._warnings))

    @property
    def _num_frames(self) -> int:
        return sum(record.num_frames for record in self._records)

    def _restore(self, session: WorldSession, block_shape: tuple[int, ...]) -> None:
        """Let a new session go on where the last one ended."""
        last = len(self._records) - 1
        for index in range(last + 1):
            known = self._folder.read_latents(index, block_shape)
            self._steer(session, index)
            block = session.next_block(None if index == last else torch.from_numpy(known))
            if self._on_restored is not None:
                self._on_restored(index + 1, last + 1)
        self._check_that_it_is_the_same(block, known)
        self._overhead_before_s = self._records[-1].overhead_s - self._times_of(block).overhead_s

    def _check_that_it_is_the_same(self, block: Block, known: Latents) -> None:
        away = float(np.abs(block.latents.cpu().numpy() - known).max())
        if not away <= _OTHER_MODEL:
            raise ModelError(
                f"this is not the model that the clip in {self._folder.path} was begun with: its block "
                f"{block.index}, made anew, is another one (latents differ by up to {away:.2g})"
            )
        if away > 0:
            self._warnings.append(
                f"block {block.index}, made anew, differs by up to {away:.1g} from what is on disk: another "
                "machine, number of threads or version; what follows is near an uninterrupted clip, not equal"
            )

    def _steer(self, session: WorldSession, index: int) -> None:
        for steer in self._info.request.steers:
            if steer.block == index:
                session.steer(steer.text, steer.blocks)

    def _keep(self, block: Block, session: WorldSession, timeline: Timeline) -> None:
        times = self._times_of(block)
        began_s = timeline.now()
        record = BlockRecord(
            block=block.index,
            prompt=block.prompt,
            first_frame=self._num_frames,
            num_frames=len(block.frames),
            size=(block.frames.shape[2], block.frames.shape[1]),
            cache_bytes=session.cache_bytes,
            finished_at_s=began_s,
            **asdict(replace(times, overhead_s=times.overhead_s + self._overhead_before_s)),
        )
        self._folder.add_block(record, block.frames, block.latents.cpu().numpy())
        self._records.append(record)
        timeline.add("write_frames", began_s, timeline.now(), {"block": block.index})

    def _times_of(self, block: Block) -> BlockTimes:
        if block.times is None:
            raise RuntimeError("a clip is made by an engine that profiles")
        return block.times

    def _summarise(self) -> dict[str, Any]:
        request, records = self._info.request, self._records
        times = [(record.times, record.num_frames) for record in records]
        return {
            "outcome": self._outcome,
            "reason": None if self._reason is None else str(self._reason),
            "model": self._info.model,
            "prompt": request.prompt,
            "seed": request.seed,
            "asked_blocks": request.num_blocks,
            "num_blocks": len(records),
            "num_frames": self._num_frames,
            "size": list(records[0].size) if records else None,
            "clip_fps": self._info.fps,
            **(asdict(summarise(times)) if times else {}),
            "cache_bytes": records[-1].cache_bytes if records else None,
            "peak_host_bytes": peak_host_bytes(),
            "peak_bytes_by_device": peak_bytes_by_device(),
        }

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except SwiftdiffError as error:  # the pictures are there; without an MP4, say, they still can be seen
            self._warnings.append(str(error))
