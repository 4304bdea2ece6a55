"""Checks that replayed graphs compute what eager Python computes, with the weights of the moment."""

from __future__ import annotations

import logging
import threading

import pytest
import torch
from torch import nn

from swiftdiff.pipeline.graphs import TracedReplay, make_replay


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
    replay = TracedReplay(part, max_graphs=2)
    for rows in (1, 2, 3, 1):
        x = torch.randn(rows, 4)
        assert equal(replay(x), part(x))
    assert len(replay._graphs._graphs) == 2


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
