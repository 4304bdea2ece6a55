"""Checks that replayed graphs compute what eager Python computes, with the weights of the moment."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from families import build_controlnet
from pipeline_family import Family
from torch import nn

from swiftdiff.pipeline.graphs import TracedGraphs, TracedReplay, make_replay
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.networks import ServedControlNet
from swiftdiff.pipeline.split_unet import ControlNetTrunk

# Of the tiny family's ControlNets: sample, time embedding, hint, prompt.
ARGUMENTS = (torch.randn(1, 4, 8, 8), torch.randn(1, 64), torch.randn(1, 16, 8, 8), torch.randn(1, 24, 32))


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(self.linear(x))
        return y.view(y.shape[0], -1, 2), y + sum(more)


@pytest.fixture
def part() -> Part:
    torch.manual_seed(0)
    return Part().eval()


def equal(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@torch.inference_mode()
def test_every_shape_gets_a_graph_of_its_own_and_all_equal_eager(part: Part) -> None:
    replay = make_replay("traced", part)
    for rows in (1, 3, 1, 2, 3):
        arguments = torch.randn(rows, 4), torch.randn(rows, 4)
        assert equal(replay(*arguments), part(*arguments))
        assert equal(replay(arguments[0]), part(arguments[0]))


@torch.inference_mode()
def test_weights_patched_in_place_are_seen_at_once(part: Part) -> None:
    replay = make_replay("traced", part)
    x = torch.randn(2, 4)
    before = replay(x)
    part.linear.weight.add_(torch.randn(4, 4))
    assert equal(replay(x), part(x))
    assert not equal(replay(x), before)


@torch.inference_mode()
def test_what_cannot_be_traced_runs_eagerly_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch._C._get_tracing_state() is not None:
                raise RuntimeError("not with me")
            return x + 1

    replay = make_replay("traced", Stubborn())
    with caplog.at_level(logging.WARNING):
        assert replay(torch.zeros(1)).item() == 1.0
        assert replay(torch.zeros(1)).item() == 1.0
    assert caplog.messages == ["Stubborn cannot be traced and runs eagerly: not with me"]


@torch.inference_mode()
def test_shapes_used_least_recently_are_forgotten_and_traced_again(part: Part) -> None:
    graphs = TracedGraphs(max_graphs=2)
    replay = TracedReplay(part, graphs)
    for rows in (1, 2, 3, 1):
        x = torch.randn(rows, 4)
        assert equal(replay(x), part(x))
    assert len(graphs) == 2


@torch.inference_mode()
def test_a_forgotten_graph_leaves_nothing_behind(part: Part) -> None:
    kept_by_torch = torch.jit._state._python_cu.get_functions
    before = len(kept_by_torch())
    replay = TracedReplay(part, TracedGraphs(max_graphs=1))
    for rows in (1, 2, 3):
        replay(torch.randn(rows, 4))
    assert len(kept_by_torch()) == before


@torch.inference_mode()
def test_controlnets_of_one_architecture_share_a_graph_and_each_equals_eager(family: Family) -> None:
    graphs = TracedGraphs()
    for _ in range(2):
        for controlnet in family.controlnets:
            served = ServedControlNet(controlnet, "traced", graphs)
            assert equal(served.compute(*ARGUMENTS), ControlNetTrunk(controlnet)(*ARGUMENTS))
    assert len(graphs) == 1


@torch.inference_mode()
def test_a_shared_graph_sees_weights_patched_in_place_in_each_controlnet(family: Family) -> None:
    graphs = TracedGraphs()
    first, second = (ServedControlNet(net, "traced", graphs) for net in family.controlnets[:2])
    before = first.compute(*ARGUMENTS), second.compute(*ARGUMENTS)
    for weight in first.controlnet.parameters():
        weight.add_(0.01 * torch.randn(weight.shape))
    assert not equal(first.compute(*ARGUMENTS), before[0])
    assert equal(first.compute(*ARGUMENTS), ControlNetTrunk(first.controlnet)(*ARGUMENTS))
    assert equal(second.compute(*ARGUMENTS), before[1])


@torch.inference_mode()
def test_a_controlnet_that_differs_in_its_config_alone_gets_a_graph_of_its_own(family: Family) -> None:
    config = dict(family.controlnets[0].config)
    other = ControlNetModel.from_config(config | {"norm_num_groups": 8}).eval()
    other.load_state_dict(family.controlnets[0].state_dict())
    graphs = TracedGraphs()
    outputs = []
    for controlnet in (family.controlnets[0], other):
        outputs.append(ServedControlNet(controlnet, "traced", graphs).compute(*ARGUMENTS))
        assert equal(outputs[-1], ControlNetTrunk(controlnet)(*ARGUMENTS))
    assert len(graphs) == 2
    assert not equal(*outputs)


@torch.inference_mode()
def test_a_shared_graph_keeps_no_controlnet_in_memory(family: Family) -> None:
    graphs = TracedGraphs()
    controlnet = build_controlnet(family.base.unet, 7)
    weight, network = weakref.ref(controlnet.conv_in.weight), weakref.ref(controlnet)
    ServedControlNet(controlnet, "traced", graphs).compute(*ARGUMENTS)
    del controlnet
    gc.collect()  # modules are cycles
    assert len(graphs) == 1
    assert weight() is None
    assert network() is None


def test_lanes_replay_one_graph_with_different_weights_at_once(
    family: Family, lanes: tuple[Lane, Lane]
) -> None:
    graphs = TracedGraphs()
    served = [ServedControlNet(net, "traced", graphs) for net in family.controlnets[:2]]
    with torch.inference_mode():
        expected = [ControlNetTrunk(net.controlnet)(*ARGUMENTS) for net in served]
    futures = [
        (lane.submit(served[(turn + side) % 2].compute, *ARGUMENTS), expected[(turn + side) % 2])
        for turn in range(20)
        for side, lane in enumerate(lanes)
    ]
    assert all(equal(future.result(), right) for future, right in futures)
    assert len(graphs) == 1


def test_tracing_leaves_the_weights_alone_that_other_lanes_use(part: Part) -> None:
    seen: list[bool] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = part

        def forward(self, x: torch.Tensor) -> Any:
            if torch._C._get_tracing_state() is not None:
                seen.append(part.linear.weight is weight)
            return self.part(x)

    weight = part.linear.weight
    with torch.inference_mode():
        make_replay("traced", Watched())(torch.randn(2, 4))
    assert seen == [True]


def test_threads_that_want_a_shape_at_once_trace_it_once(part: Part) -> None:
    traces = 0
    forward = part.linear.forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal traces
        traces += 1
        return forward(x)

    part.linear.forward = counted  # type: ignore[method-assign]
    replay = make_replay("traced", part)
    x = torch.randn(2, 4)
    together = threading.Barrier(4)
    results: list[tuple[torch.Tensor, ...]] = []

    def run() -> None:
        with torch.inference_mode():
            together.wait()
            results.append(replay(x))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traces == 1
    assert all(equal(result, results[0]) for result in results)
