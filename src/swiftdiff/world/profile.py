"""Owns what a world's parts took: from submit to first pixels, each step, the commit pass, decoding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from swiftdiff.telemetry.timeline import OFF, Details, Timeline


@dataclass(frozen=True)
class BlockTimes:
    """Seconds of one block.

    Attributes:
        first_pixels_s: From asking for the block to its pixels in host memory.
        steps_s: Of each denoising step.
        decode_s: From clean latents to pixels.
        commit_s: Of the pass that wrote the block before into the cache; it ran before this block's first
            step, mostly while nobody waited. With ``recache``, of writing the whole past anew.
        overhead_s: What noting all of this took so far in the session.
    """

    first_pixels_s: float
    steps_s: tuple[float, ...]
    decode_s: float
    commit_s: float
    overhead_s: float

    @property
    def compute_s(self) -> float:
        """Of the model alone: steps and commit pass."""
        return sum(self.steps_s) + self.commit_s


@dataclass(frozen=True)
class ClipTimes:
    """Figures of a clip, made of its blocks.

    Attributes:
        num_blocks: Blocks.
        num_frames: Pictures.
        first_pixels_s: From asking for the first block to its pixels.
        median_step_s: Of all denoising steps.
        median_commit_s: Of the commit passes.
        median_decode_s: Of decoding a block.
        fps: Frames a second of steps, commit pass and decoding.
        fps_without_decode: Frames a second of steps and commit pass.
        overhead_share: Of all that time, the part that profiling took.
    """

    num_blocks: int
    num_frames: int
    first_pixels_s: float
    median_step_s: float
    median_commit_s: float
    median_decode_s: float
    fps: float
    fps_without_decode: float
    overhead_share: float


class Stretch:
    """A stretch of a lane's work; on a GPU, of the device's and not of the thread that queues it."""

    __slots__ = ("_began", "_ended", "began_s", "ended_s")

    def __init__(self, began_s: float, began: torch.cuda.Event | None) -> None:
        self.began_s = began_s
        self.ended_s = began_s
        self._began = began
        self._ended: torch.cuda.Event | None = None

    def end(self, ended_s: float) -> None:
        """Note that the work is done, or queued on the GPU."""
        self.ended_s = ended_s
        if self._began is not None:
            self._ended = _record_event()

    @property
    def seconds(self) -> float:
        """How long it took; waits for the GPU."""
        if self._began is None or self._ended is None:
            return self.ended_s - self.began_s
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended)) / 1000


_UNTIMED = Stretch(0.0, None)


class Profiler:
    """Notes what lanes do, for the timeline and for each block's times, and counts what that costs.

    Args:
        timeline: Gets a span for each piece of work, on the track of the thread that computes it.
        is_cuda: Measure with the GPU's own events; nothing waits for them until a block is done.
        enabled: False notes nothing, to measure against.

    Attributes:
        enabled: As it was given.
    """

    def __init__(self, timeline: Timeline = OFF, *, is_cuda: bool = False, enabled: bool = True) -> None:
        self.enabled = enabled
        self._timeline = timeline
        self._is_cuda = is_cuda
        self._lock = threading.Lock()
        self._overhead_s = 0.0

    @property
    def overhead_s(self) -> float:
        """Seconds that noting took so far, on all threads; reading them is not counted."""
        with self._lock:
            return self._overhead_s

    def now(self) -> float:
        """Return the timeline's clock."""
        return self._timeline.now()

    def begin(self) -> Stretch:
        """Begin a stretch on the calling thread and its stream."""
        if not self.enabled:
            return _UNTIMED
        called_s = self._timeline.now()
        event = _record_event() if self._is_cuda else None
        began_s = self._timeline.now()
        self._count(began_s - called_s)
        return Stretch(began_s, event)

    def end(self, stretch: Stretch, name: str, about: Details) -> None:
        """End a stretch on the thread that began it, and give it to the timeline."""
        if not self.enabled:
            return
        ended_s = self._timeline.now()
        stretch.end(ended_s)
        self._timeline.add(name, stretch.began_s, ended_s, about)
        self._count(self._timeline.now() - ended_s)

    def _count(self, seconds: float) -> None:
        with self._lock:
            self._overhead_s += seconds


def summarise(blocks: Iterable[tuple[BlockTimes, int]]) -> ClipTimes:
    """Return a clip's figures.

    Args:
        blocks: Times and number of frames of each block, in order; at least one.

    Raises:
        ValueError: There is no block.
    """
    import numpy as np

    rows = list(blocks)
    if not rows:
        raise ValueError("a clip without a block has no times")
    times = [row[0] for row in rows]
    num_frames = sum(row[1] for row in rows)
    compute_s = sum(each.compute_s for each in times)
    decode_s = sum(each.decode_s for each in times)
    commits = [each.commit_s for each in times[1:]]
    overhead_s = times[-1].overhead_s
    return ClipTimes(
        num_blocks=len(times),
        num_frames=num_frames,
        first_pixels_s=times[0].first_pixels_s,
        median_step_s=float(np.median([step for each in times for step in each.steps_s])),
        median_commit_s=float(np.median(commits)) if commits else 0.0,
        median_decode_s=float(np.median([each.decode_s for each in times])),
        fps=num_frames / (compute_s + decode_s) if compute_s + decode_s > 0 else 0.0,
        fps_without_decode=num_frames / compute_s if compute_s > 0 else 0.0,
        overhead_share=overhead_s / (compute_s + decode_s) if compute_s + decode_s > 0 else 0.0,
    )


def _record_event() -> torch.cuda.Event:
    make: Callable[..., torch.cuda.Event] = torch.cuda.Event
    event = make(enable_timing=True)
    event.record()
    return event
