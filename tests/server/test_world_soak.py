"""What is told of a stream that was watched for minutes."""

from __future__ import annotations

from swiftdiff.server.world_soak import SETTLED, Sample, summarise


def test_rate_and_memory_are_told_as_they_were() -> None:
    steady = [Sample(10.0 * at, 80 * at, 0, 500.0, 300.0) for at in range(20)]
    figures = summarise(steady)
    assert (figures["fps_median"], figures["fps_min"], figures["fps_max"]) == (8.0, 8.0, 8.0)
    assert (figures["frames"], figures["missed"]) == (80 * 19, 0)
    assert figures["server_mb_a_minute"] == figures["client_mb_a_minute"] == 0.0


def test_a_leak_a_stall_and_missed_frames_show() -> None:
    frames = [80 * at - (50 if at >= 12 else 0) for at in range(20)]
    leaking = [Sample(10.0 * at, frames[at], at, 500.0 + at, 300.0) for at in range(20)]
    figures = summarise(leaking)
    assert figures["fps_min"] == 3.0
    assert figures["missed"] == 19
    assert figures["server_mb_a_minute"] == 6.0
    assert figures["server_mb_last"] - figures["server_mb_settled"] == 19 - SETTLED
