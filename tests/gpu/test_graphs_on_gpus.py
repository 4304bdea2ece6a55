"""Checks that CUDA graphs compute what eager Python does, with weights of the moment, in bounded memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from gpu import NEEDS_GPU
from torch import nn

from swiftdiff.pipeline.captured import num_captures
from swiftdiff.pipeline.cuda_graphs import CudaGraphReplay, CudaGraphs
from swiftdiff.pipeline.lane import Lane

pytestmark = NEEDS_GPU

WIDTH = 512


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(8)))

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layers(x)
        return y, y + sum(more)


@pytest.fixture
def lane() -> Iterator[Lane]:
    with Lane("cuda:0") as lane:
        yield lane


@pytest.fixture
def part() -> Part:
    torch.manual_seed(0)
    return Part().eval().requires_grad_(False).to("cuda:0", torch.float16)


def draw(rows: int) -> torch.Tensor:
    return torch.randn(rows, WIDTH, device="cuda:0", dtype=torch.float16)


def equal(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_replays_have_eagers_bits_and_see_weights_patched_in_place(part: Part, lane: Lane) -> None:
    replay, before = CudaGraphReplay(part), num_captures()
    for turn in range(12):
        x, y = draw(64 + 64 * (turn % 2)), draw(64 + 64 * (turn % 2))
        assert equal(lane.submit(replay, x, y).result(), lane.submit(part, x, y).result())
        part.layers[turn % 8][0].weight.add_(0.01)  # type: ignore[index]
    assert num_captures() - before == 2


def test_results_outlive_the_lanes_next_replays(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs()
    first, second = CudaGraphReplay(part, graphs), CudaGraphReplay(Part().to("cuda:0", torch.float16), graphs)
    x = draw(256)
    lane.submit(second, x).result()
    kept = [lane.submit(first, x).result() for _ in range(3)]
    for _ in range(20):
        lane.submit(second, draw(256))
    expected = lane.submit(part, x).result()
    assert all(equal(result, expected) for result in kept)


def test_a_lane_captures_while_another_allocates_and_computes(part: Part, lane: Lane) -> None:
    replay = CudaGraphReplay(part)

    def compute() -> torch.Tensor:
        # Not drawn: while a graph is captured the device's random generator is the graph's alone.
        total: torch.Tensor = part(torch.full((512, WIDTH), 0.5, device="cuda:0", dtype=torch.float16))[
            0
        ].sum()
        return total

    with Lane("cuda:0") as other:
        busy = [other.submit(compute) for _ in range(200)]
        inputs = [draw(rows) for rows in range(8, 88, 8)]
        results = [lane.submit(replay, x) for x in inputs]
        for x, result in zip(inputs, results, strict=True):
            assert equal(result.result(), lane.submit(part, x).result())
        assert all(torch.isfinite(future.result()) for future in busy)


def test_two_lanes_replay_one_module_at_once(part: Part) -> None:
    replay = CudaGraphReplay(part)
    with Lane("cuda:0") as first, Lane("cuda:0") as second:
        pairs = [(lane, draw(128)) for _ in range(50) for lane in (first, second)]
        futures = [(lane.submit(replay, x), x, lane) for lane, x in pairs]
        assert all(equal(f.result(), lane.submit(part, x).result()) for f, x, lane in futures)


def test_memory_is_bounded_and_comes_back(part: Part, lane: Lane) -> None:
    lane.submit(part, draw(256)).result()  # libraries keep what they allocate for a lane's first product
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    graphs = CudaGraphs(max_graphs=2)
    replay = CudaGraphReplay(part, graphs)
    pools = []
    for turn in range(12):
        lane.submit(replay, draw(256 + turn)).result()
        pools.append(graphs.pool_bytes)
    assert len(graphs) == 2
    assert max(pools[4:]) <= max(pools[:4])
    del replay, graphs
    lane.submit(print, "").result()
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 2**20
