"""Checks how CUDA graphs are kept, fed and let go, with captures that a CPU can make; see also tests/gpu."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from fake_capturer import FakeCapturer
from pipeline_family import CPU, Case, Family
from torch import nn

from swiftdiff.models.presets import build_preset, build_preset_controlnet
from swiftdiff.pipeline.acceleration import Acceleration
from swiftdiff.pipeline.captured import num_captures
from swiftdiff.pipeline.cuda_graphs import CaptureError, CudaGraphReplay, CudaGraphs
from swiftdiff.pipeline.denoise import Denoiser
from swiftdiff.pipeline.graphs import make_replay
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.networks import ServedControlNet, SplitUNet
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.linear(x)
        return y.relu(), y + sum(more)


@pytest.fixture
def part() -> Part:
    torch.manual_seed(0)
    return Part().eval()


@pytest.fixture
def lane() -> Iterator[Lane]:
    with Lane("cpu:0", num_threads=1) as lane:
        yield lane


def equal(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def expected(part: nn.Module, *arguments: torch.Tensor) -> Any:
    with torch.inference_mode():
        return part(*arguments)


def test_every_shape_is_captured_once_and_equals_eager(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    replay, before = make_replay("cuda_graph", part, cuda_graphs=graphs), num_captures()
    for rows in (1, 3, 1, 2, 3):
        arguments = torch.randn(rows, 4), torch.randn(rows, 4)
        assert equal(lane.submit(replay, *arguments).result(), expected(part, *arguments))
        assert equal(lane.submit(replay, arguments[0]).result(), expected(part, arguments[0]))
    assert len(graphs) == num_captures() - before == 6


def test_weights_patched_in_place_are_seen_and_nothing_is_captured_again(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    replay, x = CudaGraphReplay(part, graphs), torch.randn(2, 4)
    before = lane.submit(replay, x).result()
    captured = num_captures()
    for _ in range(3):
        with torch.no_grad():
            part.linear.weight.add_(torch.randn(4, 4))
        assert equal(lane.submit(replay, x).result(), expected(part, x))
    assert not equal(lane.submit(replay, x).result(), before)
    assert num_captures() == captured


def test_results_outlive_what_the_lane_replays_next(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    first, second = CudaGraphReplay(part, graphs), CudaGraphReplay(Part(), graphs)
    x = torch.randn(2, 4)
    lane.submit(second, x).result()
    result = lane.submit(first, x).result()
    lane.submit(second, x).result()
    assert equal(result, expected(part, x))
    assert graphs.pool_bytes == 4 * 2 * 4 * 4


def test_arguments_are_copied_when_they_are_others_and_not_kept_alive(part: Part, lane: Lane) -> None:
    replay = CudaGraphReplay(part, CudaGraphs(capturer=FakeCapturer()))
    kept, x = torch.randn(2, 4), torch.randn(2, 4)
    gone = weakref.ref(x)
    lane.submit(replay, x, kept).result()
    for _ in range(2):
        x = torch.randn(2, 4)
        assert equal(lane.submit(replay, x, kept).result(), expected(part, x, kept))
    lane.submit(print, "").result()
    gc.collect()
    assert gone() is None


def test_lanes_have_graphs_of_their_own(part: Part) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    replay = CudaGraphReplay(part, graphs)
    with Lane("cpu:0", num_threads=1) as first, Lane("cpu:1", num_threads=1) as second:
        pairs = [(lane, torch.randn(2, 4)) for _ in range(20) for lane in (first, second)]
        futures = [(lane.submit(replay, x), x) for lane, x in pairs]
        assert all(equal(future.result(), expected(part, x)) for future, x in futures)
    assert len(graphs) == 2


def test_outside_of_lanes_modules_run_eagerly(part: Part) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    x = torch.randn(2, 4)
    assert equal(CudaGraphReplay(part, graphs)(x), part(x))
    assert len(graphs) == 0


@pytest.mark.parametrize("limit", [{"max_graphs": 2}, {"max_bytes": 2 * 3 * 16 * 3}])
def test_graphs_over_the_limit_go_once_the_device_has_run_them_and_are_captured_again(
    part: Part, lane: Lane, limit: dict[str, int]
) -> None:
    capturer = FakeCapturer()
    graphs = CudaGraphs(capturer=capturer, **limit)
    replays = [CudaGraphReplay(part, graphs) for _ in range(3)]  # as of an encoder, a decoder, a ControlNet
    x = torch.randn(3, 4)  # 48 bytes, and as many for each of two results
    for number in (0, 1, 0, 2, 0):
        assert equal(lane.submit(replays[number], x).result(), expected(part, x))
    assert (len(graphs), len(capturer.captured), capturer.num_waits) == (2, 3, 1)
    assert graphs.num_bytes == 2 * 3 * 48
    lane.submit(replays[1], x).result()
    assert (len(graphs), len(capturer.captured), capturer.num_waits) == (2, 4, 2)


def test_the_graph_in_use_stays_however_small_the_limit(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs(max_bytes=0, capturer=FakeCapturer())
    replay = CudaGraphReplay(part, graphs)
    for rows in (1, 2):
        x = torch.randn(rows, 4)
        assert equal(lane.submit(replay, x).result(), expected(part, x))
    assert len(graphs) == 1


def test_graphs_of_a_network_that_is_gone_go_too(part: Part, lane: Lane) -> None:
    graphs = CudaGraphs(capturer=FakeCapturer())
    replay, other = CudaGraphReplay(part, graphs), CudaGraphReplay(part, graphs)
    lane.submit(replay, torch.randn(2, 4)).result()
    lane.submit(print, "").result()
    del replay
    gc.collect()
    lane.submit(other, torch.randn(2, 4)).result()
    assert len(graphs) == 1


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(
    part: Part, lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(FakeCapturer):
        def capture(self, *arguments: Any) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    replay, x = CudaGraphReplay(part, CudaGraphs(capturer=Refusing())), torch.randn(2, 4)
    with caplog.at_level(logging.WARNING):
        assert equal(lane.submit(replay, x).result(), expected(part, x))
        assert equal(lane.submit(replay, x).result(), expected(part, x))
    assert len(caplog.messages) == 1
    assert "Part cannot be captured and runs eagerly: operation not permitted" in caplog.messages[0]


def test_after_a_capture_that_was_broken_off_nothing_is_captured_or_replayed(
    part: Part, lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaking(FakeCapturer):
        def capture(self, module: nn.Module, *arguments: Any) -> Any:
            if module is second:
                raise CaptureError("operation not permitted when stream is capturing")
            capture = super().capture(module, *arguments)
            return replace(capture, replay=lambda: replayed.append(1) or capture.replay())

    second, replayed = Part().eval(), []  # type: ignore[var-annotated]
    graphs = CudaGraphs(capturer=Breaking())
    first, broken = CudaGraphReplay(part, graphs), CudaGraphReplay(second, graphs)
    x, y = torch.randn(2, 4), torch.randn(3, 4)
    assert equal(lane.submit(first, x).result(), expected(part, x))
    assert equal(lane.submit(broken, x).result(), expected(second, x))
    before = list(replayed)
    for argument in (x, y):
        assert equal(lane.submit(first, argument).result(), expected(part, argument))
    assert (before, replayed) == ([1], [1])
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the capture of Part was broken off" in caplog.text


def test_sdxls_topology_by_graphs_on_two_lanes_gives_stock_latents_up_to_rounding(
    lanes: tuple[Lane, Lane],
) -> None:
    thin = Family(build_preset("sdxl-thin"), [build_preset_controlnet("sdxl-thin", "edges")])
    case = Case(controlnets=1, steps=2, size=(72, 64))
    expected = thin.stock_latents(case)
    graphs = CudaGraphs(capturer=FakeCapturer())
    faster = Acceleration(tune=True, channels_last=True, cuda_graphs=graphs)
    job = thin.job(case)
    network = ServedControlNet(thin.controlnets[0], "cuda_graph", acceleration=faster)
    control = replace(job.controlnets[0], network=Replicas("edges", {CPU: network}))
    unets = Replicas("the UNet", {CPU: SplitUNet(thin.base.unet, "cuda_graph", acceleration=faster)})
    denoiser = Denoiser(unets, Placement(lanes, lanes))
    latents = denoiser.denoise(replace(job, controlnets=(control,))).latents
    torch.testing.assert_close(latents, expected, atol=2e-3, rtol=0.0)
    assert len(graphs) == 6  # encoder half, decoder half and ControlNet, on each lane
