"""Checks that streams wait for each other: no lane reads what is not there yet, or is another's already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from gpu import NEEDS_GPU

from swiftdiff.adapters.transfers import StagedCopies, beside, side_stream
from swiftdiff.pipeline.lane import Lane, synchronize
from swiftdiff.pipeline.pace import Pace

pytestmark = NEEDS_GPU

SIDE = 2048


@pytest.fixture
def lanes() -> Iterator[tuple[Lane, Lane]]:
    with Lane("cuda:0") as first, Lane("cuda:0") as second:
        yield first, second


def filled(value: float) -> torch.Tensor:
    return torch.full((SIDE, SIDE), value, device="cuda:0")


def slowly(value: float) -> torch.Tensor:
    """Queue some milliseconds of work, and then a tensor of one value."""
    busy = torch.ones(SIDE, SIDE, device="cuda:0")
    for _ in range(20):
        busy = busy @ busy / SIDE
    return busy * 0 + value


def test_a_lane_reads_another_lanes_result_when_it_is_there(lanes: tuple[Lane, Lane]) -> None:
    first, second = lanes
    for value in range(20):
        total = second.submit(lambda x: x.sum(dtype=torch.float64), first.submit(slowly, value))
        assert total.result().item() == value * SIDE**2


def test_memory_is_not_given_to_others_before_the_last_lane_has_read_it(lanes: tuple[Lane, Lane]) -> None:
    first, second = lanes
    sums = []
    for value in range(50):
        made = first.submit(filled, float(value)).result()
        second.submit(slowly, 0.0)  # so that what follows is read late
        sums.append(second.submit(lambda x: x.sum(dtype=torch.float64), made))
        del made
        first.submit(filled, -1.0)  # takes its memory, if it may
    assert [total.result().item() for total in sums] == [value * SIDE**2 for value in range(50)]


def test_a_lane_sees_what_its_caller_changed_in_place(lanes: tuple[Lane, Lane]) -> None:
    weight = torch.zeros(SIDE, SIDE, device="cuda:0")
    for value in range(20):
        weight.copy_(slowly(value))
        assert lanes[0].submit(lambda: weight.sum(dtype=torch.float64)).result().item() == value * SIDE**2


def test_a_cpu_lane_gets_tensors_whose_copy_has_ended(lanes: tuple[Lane, Lane]) -> None:
    with Lane("cpu:0", num_threads=1) as host:
        for value in range(10):
            future = host.submit(lambda x: x.double().sum(), lanes[0].submit(slowly, value))
            assert future.result().item() == value * SIDE**2
            plain = host.submit(lambda x: x.double().sum(), slowly(value))
            assert plain.result().item() == value * SIDE**2


def test_side_streams_are_never_a_lanes() -> None:
    device = torch.device("cuda", 0)
    sides = {side_stream(device, purpose).cuda_stream for purpose in ("copy", "patch")}  # type: ignore[union-attr]
    assert len(sides) == 2
    for _ in range(40):  # torch hands out 32 streams in turn
        with Lane("cuda:0") as lane:
            assert lane.submit(lambda: torch.cuda.current_stream().cuda_stream).result() not in sides


def test_what_runs_beside_comes_after_the_callers_work_and_before_what_follows() -> None:
    device = torch.device("cuda", 0)
    for value in range(20):
        there = slowly(value)
        with beside(device, "patch"):
            there.mul_(2)
        assert there.sum(dtype=torch.float64).item() == 2 * value * SIDE**2


def test_staged_copies_are_whole_beside_other_work(lanes: tuple[Lane, Lane]) -> None:
    copies = StagedCopies(torch.device("cuda", 0), num_bytes=2**20)
    sources = [torch.randn(700, 900), torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)]
    for _ in range(5):
        lanes[0].submit(slowly, 1.0)
        found = [copies.copy(source) for source in sources]
        copies.wait()
        for there, source in zip(found, sources, strict=True):
            assert torch.equal(there.cpu(), source)
            assert there.stride() == source.stride()
    assert all(buffer.is_pinned() for buffer in copies._buffers)


def test_waiting_for_a_device_does_not_break_a_capture(lanes: tuple[Lane, Lane]) -> None:
    from swiftdiff.pipeline.cuda_graphs import CudaGraphReplay

    replay = CudaGraphReplay(torch.nn.Linear(64, 64, device="cuda:0"))
    futures = [lanes[0].submit(replay, torch.ones(rows, 64, device="cuda:0")) for rows in range(1, 20)]
    while not all(future._future.done() for future in futures):
        synchronize(torch.device("cuda", 0))
    for rows, future in enumerate(futures, start=1):
        assert future.result().shape == (rows, 64)


def test_no_more_than_one_step_is_under_way_when_the_next_is_queued() -> None:
    pace, before = Pace.on(torch.device("cuda", 0)), None
    assert pace is not None
    for step in range(20):
        slowly(step)
        pace.end_step()
        assert before is None or before.query()
        before = torch.cuda.current_stream().record_event()
