"""Checks that what graphs cost is counted, each second once."""

from __future__ import annotations

import time

import torch

from swiftdiff.pipeline.captured import CapturedGraphs, capture_seconds, num_captures


def test_a_capture_counts_with_the_seconds_that_it_takes_and_a_replay_does_not() -> None:
    graphs: CapturedGraphs[str, int] = CapturedGraphs(4)

    def capture() -> int:
        time.sleep(0.05)
        return 1

    number, seconds = num_captures(), capture_seconds()
    for _ in range(3):
        assert graphs.get("key", capture) == 1
    assert num_captures() - number == 1
    assert capture_seconds() - seconds >= 0.05
    once = capture_seconds()
    graphs.get("key", capture)
    assert capture_seconds() == once


def test_what_is_compiled_counts_once_also_inside_of_a_capture() -> None:
    torch._dynamo.reset()
    graphs: CapturedGraphs[str, torch.Tensor] = CapturedGraphs(4)
    began, before = time.perf_counter(), capture_seconds()
    twice = torch.compile(lambda x: x * 2, backend="eager")
    twice(torch.ones(2))
    compiled = capture_seconds() - before
    assert compiled > 0
    thrice = torch.compile(lambda x: x * 3, backend="eager")
    graphs.get("key", lambda: thrice(torch.ones(2)))
    assert compiled < capture_seconds() - before <= time.perf_counter() - began
