"""Checks that a lane computes in order with its own threads, hands errors over, and ends cleanly."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
import torch
from patience import PATIENCE_S, until

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.lane import Lane, LaneFuture
from swiftdiff.pipeline.work import Work

_COUNT_THREADS = """
import json, os, sys, torch
from swiftdiff.pipeline.lane import Lane, LaneFuture

def count(work):
    work()
    return len(os.listdir("/proc/self/task"))

with Lane("cpu", num_threads=int(sys.argv[1])) as lane:
    counts = [lane.submit(count, work).result() for work in (
        lambda: None,
        lambda: torch.zeros(2000, 2000).exp_(),
        lambda: torch.nn.functional.conv2d(torch.zeros(2, 32, 64, 64), torch.zeros(64, 32, 3, 3)),
        lambda: torch.zeros(600, 600) @ torch.zeros(600, 600),
    )]
    print(json.dumps({"counts": counts, "caller": torch.get_num_threads()}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_openmp_onednn_and_mkl_use_the_lanes_threads_and_the_caller_keeps_its_own(num_threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_THREADS, str(num_threads)],
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    idle, *busy = found["counts"]
    assert busy == [idle + num_threads - 1] * 3
    assert found["caller"] == 2


def test_work_is_done_in_order_on_one_thread_that_is_not_the_callers() -> None:
    with Lane("cpu:1") as lane:
        done = [lane.submit(lambda i=i: (i, threading.get_ident())) for i in range(20)]
        results = [future.result() for future in done]
    assert [number for number, _ in results] == list(range(20))
    (thread,) = {thread for _, thread in results}
    assert thread != threading.get_ident()


def test_work_may_be_given_what_another_lane_has_yet_to_compute() -> None:
    is_waited_for = threading.Event()
    ticks = itertools.count()

    def clock() -> float:  # is read when the second lane begins to wait, and when it has waited
        is_waited_for.set()
        return float(next(ticks))

    def slow(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert is_waited_for.wait(PATIENCE_S)
        return value + 1, value + 2

    with Lane("cpu:0") as first, Lane("cpu:1", clock=clock) as second:
        pair = first.submit(slow, torch.zeros(1))
        total = second.submit(lambda pairs, extra: pairs[0][0] + pairs[0][1] + extra, [pair], torch.ones(1))
        assert total.result().item() == 4.0
        assert second.waited_s == 1.0
        assert first.waited_s == 0.0


def test_what_work_raises_reaches_all_who_ask_and_the_lane_goes_on() -> None:
    with Lane("cpu:0") as first, Lane("cpu:1") as second:

        def fail() -> None:
            raise MemoryError("too big")

        failed = first.submit(fail)
        dependent = second.submit(print, failed)
        for future in (failed, dependent):
            with pytest.raises(MemoryError, match="too big"):
                future.result()
        assert first.submit(lambda: 1).result() == 1


def test_closing_finishes_what_is_queued_and_refuses_more() -> None:
    lane = Lane("cpu:0")
    futures = [lane.submit(lambda i=i: i) for i in range(5)]
    lane.close()
    lane.close()
    assert [future.result() for future in futures] == list(range(5))
    with pytest.raises(RuntimeError, match="lane cpu:0 is closed"):
        lane.submit(print)


def test_work_that_fails_is_waited_for_and_the_rest_of_it_is_cancelled() -> None:
    begun, finished = threading.Event(), threading.Event()
    cancelled: list[LaneFuture[Any]] = []

    def slow() -> None:
        begun.set()
        until(lambda: cancelled and cancelled[0]._future.cancelled())
        finished.set()

    with Lane("cpu:0") as lane:
        with pytest.raises(ValueError, match="stop"), Work() as work:
            work.submit(lane, slow)
            cancelled.append(never := work.submit(lane, pytest.fail))
            until(begun.is_set)
            raise ValueError("stop")
        assert finished.is_set()
        with pytest.raises(CancelledError):
            never.result()


def test_results_are_not_kept_alive_by_the_lane() -> None:
    import gc
    import weakref

    with Lane("cpu:0") as lane:
        result = lane.submit(torch.zeros, 4).result()
        gone = weakref.ref(result)
        lane.submit(print, "").result()
        del result
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "cuda:99", "cpu:-1", ""])
def test_a_lane_on_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lane is"):
        Lane(name)


def test_a_lane_without_threads_is_refused() -> None:
    with pytest.raises(ConfigError, match="lane cpu:0: num_threads is 0, but must be 1 or more"):
        Lane("cpu:0", num_threads=0)
