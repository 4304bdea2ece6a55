"""Checks that emulated GPUs find what real ones punish: each test leaves out what would make it right."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from emulated_cuda import NEEDS_NO_GPU, emulated_cuda
from emulated_streams import Machine
from torch import nn

pytestmark = NEEDS_NO_GPU


def the_finding(machine: Machine) -> str:
    (finding,) = machine.take_findings()
    return finding


def test_tensors_say_where_they_are_and_have_the_cpus_values(machine: Machine) -> None:
    x = torch.arange(6.0, device="cuda:1").view(2, 3)
    assert x.is_cuda
    assert x.device == torch.device("cuda", 1)
    assert torch.equal((x @ x.T).cpu(), torch.arange(6.0).view(2, 3) @ torch.arange(6.0).view(2, 3).T)
    assert torch.tensor([1.0], device="cuda:1").to("cuda").device.index == 0
    assert (x.sum() * torch.tensor(2.0)).item() == 30.0


def test_views_are_views(machine: Machine) -> None:
    x = torch.zeros(4, 4, device="cuda:0")
    x[1].view(2, 2).add_(3)
    x.T[0].fill_(1)
    with torch.inference_mode():
        x[2:].mul_(2)
    assert x.cpu().tolist() == [[1, 0, 0, 0], [1, 3, 3, 3], [2, 0, 0, 0], [2, 0, 0, 0]]


def test_a_parameters_memory_may_be_replaced(machine: Machine) -> None:
    linear = nn.Linear(2, 2, device="cuda:0")
    together = torch.cat([linear.weight.data] * 2)
    linear.weight.data = together[2:]
    together.fill_(3)
    assert linear.weight.storage_offset() == 4
    assert linear.weight.cpu().tolist() == [[3, 3], [3, 3]]


def test_modules_move_and_are_copied(machine: Machine) -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)).eval()
    x = torch.randn(1, 2, 5, 5)
    expected = module(x)
    moved = copy.deepcopy(module.to("cuda:0")).to("cuda:1", memory_format=torch.channels_last)
    assert {str(weight.device) for weight in (*moved.parameters(), *moved.buffers())} == {"cuda:1"}
    assert all(isinstance(weight, nn.Parameter) for weight in moved.parameters())
    torch.testing.assert_close(moved(x.to("cuda:1")).cpu(), expected)


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_devices_do_not_mix(machine: Machine, other: str) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.ones(2, device="cuda:0") + torch.ones(2, device=other)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        nn.Linear(2, 2, device=other)(torch.ones(1, 2, device="cuda:0"))


def test_a_device_that_there_is_not_is_refused(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(1, device="cuda:2")


@pytest.mark.parametrize("waits", [False, True])
def test_a_stream_that_does_not_wait_reads_too_early(machine: Machine, waits: bool) -> None:
    x, side = torch.ones(2, device="cuda:0"), torch.cuda.Stream("cuda:0")
    if waits:
        side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x + 1
    torch.cuda.current_stream().wait_stream(side)
    assert len(machine.findings) == (not waits)
    if not waits:
        finding = the_finding(machine)
        assert "RACE: add at test_emulator.py" in finding
        assert "reads memory, and need not come after the write of ones" in finding
    assert y.sum().item() == 4


@pytest.mark.parametrize("waits", [False, True])
def test_a_stream_that_does_not_wait_overwrites_too_early(machine: Machine, waits: bool) -> None:
    x, side = torch.ones(2, device="cuda:0"), torch.cuda.Stream("cuda:0")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x + 1
    if waits:
        torch.cuda.current_stream().wait_stream(side)
    x.zero_()
    if waits:
        assert y.sum().item() == 4
    else:
        assert "zero_" in the_finding(machine)


def test_an_event_counts_from_when_it_was_recorded(machine: Machine) -> None:
    event, side = torch.cuda.Event(), torch.cuda.Stream("cuda:0")
    event.record()
    x = torch.ones(2, device="cuda:0")
    side.wait_event(event)
    with torch.cuda.stream(side):
        x.add_(1)
    assert "add_" in the_finding(machine)


@pytest.mark.parametrize("orders", ["nothing", "record_stream", "wait"])
def test_memory_given_back_while_another_stream_reads_it_is_given_out_again(
    machine: Machine, orders: str
) -> None:
    side = torch.cuda.Stream("cuda:0")
    x = torch.ones(2, device="cuda:0")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = x + 1
    if orders == "record_stream":
        x.record_stream(side)
    if orders == "wait":
        torch.cuda.current_stream().wait_stream(side)
    del x
    z = torch.empty(2, device="cuda:0")
    if orders == "nothing":
        assert "USE AFTER FREE: memory of cuda:0's default stream" in the_finding(machine)
    del y, z


@pytest.mark.parametrize("waits", [False, True])
def test_a_pinned_buffer_overwritten_while_it_is_copied(machine: Machine, waits: bool) -> None:
    buffer = torch.ones(2).pin_memory()
    assert buffer.is_pinned()
    there = buffer.to("cuda:0", non_blocking=True)
    if waits:
        torch.cuda.current_stream().synchronize()
    buffer.zero_()
    if not waits:
        assert "RACE: zero_" in the_finding(machine)
    assert there.sum().item() == 2


@pytest.mark.parametrize("pinned", [False, True])
def test_ordinary_memory_may_be_overwritten_at_once(machine: Machine, pinned: bool) -> None:
    buffer = torch.ones(2, 2)
    if pinned:  # but not dense: torch makes a copy, which is not pinned
        buffer = buffer.pin_memory()[:, :1]
    buffer.to("cuda:0", non_blocking=True)
    buffer.zero_()


@pytest.mark.parametrize("reads", ["item", "numpy", "an operation"])
def test_what_comes_to_the_host_is_read_too_early(machine: Machine, reads: str) -> None:
    there = torch.ones(2, device="cuda:0").to("cpu", non_blocking=True)
    {"item": there[0].item, "numpy": there.numpy, "an operation": there.sum}[reads]()
    assert "on the host reads memory" in the_finding(machine)
    torch.cuda.synchronize()
    assert there.sum().item() == 2


def test_copies_between_devices_are_ordered_on_both(machine: Machine) -> None:
    x = torch.ones(2, device="cuda:0")
    y = x.to("cuda:1", non_blocking=True)
    x.zero_()
    y.add_(1)
    assert not machine.findings
    side = torch.cuda.Stream("cuda:1")
    with torch.cuda.stream(side):
        y.to("cuda:0")
    assert the_finding(machine)
    assert y.cpu().tolist() == [2, 2]


def test_only_what_was_written_must_be_waited_for(machine: Machine) -> None:
    x, side = torch.ones(4, device="cuda:0"), torch.cuda.Stream("cuda:0")
    side.wait_stream(torch.cuda.current_stream())
    x[:2].zero_()
    with torch.cuda.stream(side):
        x[2:].add_(1)
        x[2:] + 1
    assert not machine.findings
    with torch.cuda.stream(side):
        x[1:] + 1
    assert the_finding(machine)


def capture(compute: Callable[[], torch.Tensor], pool: Any = None) -> tuple[Any, torch.Tensor]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
        output = compute()
    return graph, output


def test_a_graph_computes_when_it_is_replayed_from_what_is_there_then(machine: Machine) -> None:
    x = torch.ones(2, device="cuda:0")
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        graph, y = capture(lambda: (x + 1).mul_(2).view(2, 1))
        assert y.isnan().all()
        x.fill_(3)
        graph.replay()
        assert y.cpu().tolist() == [[8], [8]]


@pytest.mark.parametrize("what", ["item", "copy", "event"])
def test_a_capture_is_broken_off_by_what_waits(machine: Machine, what: str) -> None:
    x = torch.ones(2, device="cuda:0")
    event = torch.cuda.current_stream().record_event()
    does: dict[str, Callable[[], Any]] = {
        "item": x.sum().item,
        "copy": x.cpu,
        "event": lambda: torch.cuda.current_stream().wait_event(event),
    }
    side = torch.cuda.Stream("cuda:0")
    with torch.cuda.stream(side), pytest.raises(RuntimeError, match="CUDA error"):
        capture(lambda: (x, does[what]())[0])


def test_no_device_is_waited_for_while_a_graph_is_captured(machine: Machine) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            errors.append(error)

    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        other = threading.Thread(target=wait)
        capture(lambda: (other.start(), other.join(), torch.ones(1, device="cuda:0"))[2])
    assert "not permitted when stream is capturing" in str(errors[0])


def test_graphs_of_one_pool_overwrite_each_others_results(machine: Machine) -> None:
    pool = torch.cuda.graph_pool_handle()
    with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
        graph, y = capture(lambda: torch.ones(2, device="cuda:0"), pool)
        other, _ = capture(lambda: torch.ones(2, device="cuda:0"), pool)
        graph.replay()
        kept = y.clone()
        with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
            y + 1
        other.replay()
        assert y.isnan().all()
        assert kept.sum().item() == 2
    findings = machine.take_findings()
    assert any("the replay of another graph" in finding for finding in findings)


def test_nothing_of_it_is_left() -> None:
    with emulated_cuda():
        torch.ones(1, device="cuda:0")
    assert torch.cuda.device_count() == 0
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(1, device="cuda:0")
    assert torch.tensor([1.0]).numpy().tolist() == [1.0]


def test_what_was_found_fails_the_test_that_did_not_expect_it() -> None:
    with pytest.raises(AssertionError, match="RACE"), emulated_cuda():
        x = torch.ones(2, device="cuda:0")
        with torch.cuda.stream(torch.cuda.Stream("cuda:0")):
            x.add_(1)
