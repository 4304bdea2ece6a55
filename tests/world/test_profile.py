from __future__ import annotations

import itertools

import pytest

from swiftdiff.telemetry.timeline import Timeline
from swiftdiff.world.profile import BlockTimes, Profiler, summarise


def ticking() -> Timeline:
    ticks = itertools.count()
    return Timeline(lambda: float(next(ticks)))


def test_a_stretch_is_in_the_timeline_and_its_noting_is_counted() -> None:
    timeline = ticking()
    profiler = Profiler(timeline)
    stretch = profiler.begin()  # the clock is read at 0 and 1
    profiler.end(stretch, "world_step", {"block": 3})  # and at 2 and 3
    (span,) = timeline.drain()
    assert (span.name, span.began_s, span.ended_s, span.details) == ("world_step", 1, 2, {"block": 3})
    assert stretch.seconds == 1
    assert profiler.overhead_s == 2


def test_a_profiler_that_is_off_notes_nothing() -> None:
    timeline = ticking()
    profiler = Profiler(timeline, enabled=False)
    profiler.end(profiler.begin(), "world_step", {})
    assert timeline.pending == 0
    assert profiler.overhead_s == 0
    assert timeline.now() == 0  # the clock was not even read


def test_frames_per_second_are_stated_with_and_without_decoding() -> None:
    first = BlockTimes(first_pixels_s=0.9, steps_s=(0.2, 0.2), decode_s=0.5, commit_s=0.0, overhead_s=0.01)
    second = BlockTimes(first_pixels_s=1.0, steps_s=(0.2, 0.3), decode_s=0.4, commit_s=0.1, overhead_s=0.02)
    clip = summarise([(first, 3), (second, 3)])
    assert clip.num_frames == 6
    assert clip.first_pixels_s == 0.9
    assert clip.median_step_s == pytest.approx(0.2)
    assert clip.median_commit_s == pytest.approx(0.1)
    assert clip.fps_without_decode == pytest.approx(6 / 1.0)
    assert clip.fps == pytest.approx(6 / 1.9)
    assert clip.overhead_share == pytest.approx(0.02 / 1.9)


def test_a_clip_without_blocks_has_no_figures() -> None:
    with pytest.raises(ValueError, match="without a block"):
        summarise([])
