"""Runs tests of `tests/gpu` on emulated GPUs, as they are but for their sizes."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from emulated_cuda import NEEDS_NO_GPU
from emulated_streams import Machine

from swiftdiff.adapters.delta_plan import DeltaPlan
from swiftdiff.pipeline.lane import Lane

pytestmark = NEEDS_NO_GPU

GPU_TESTS = Path(__file__).parent.parent / "gpu"


def gpu_tests(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_emulated", GPU_TESTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LANES = gpu_tests("test_lanes_on_gpus")
LANES.SIDE = 8  # type: ignore[attr-defined]
GRAPHS = gpu_tests("test_graphs_on_gpus")
GRAPHS.WIDTH = 8  # type: ignore[attr-defined]
PATCHING = gpu_tests("test_patching_on_gpus")
plans = PATCHING.plans


@pytest.fixture
def lanes(machine: Machine) -> Iterator[tuple[Lane, Lane]]:
    with Lane("cuda:0") as first, Lane("cuda:0") as second:
        yield first, second


@pytest.mark.parametrize(
    "test",
    [
        LANES.test_a_lane_reads_another_lanes_result_when_it_is_there,
        LANES.test_memory_is_not_given_to_others_before_the_last_lane_has_read_it,
        LANES.test_a_lane_sees_what_its_caller_changed_in_place,
        LANES.test_a_cpu_lane_gets_tensors_whose_copy_has_ended,
        LANES.test_side_streams_are_never_a_lanes,
        LANES.test_what_runs_beside_comes_after_the_callers_work_and_before_what_follows,
        LANES.test_staged_copies_are_whole_beside_other_work,
        LANES.test_waiting_for_a_device_does_not_break_a_capture,
        LANES.test_no_more_than_one_step_is_under_way_when_the_next_is_queued,
    ],
    ids=lambda test: test.__name__,
)
def test_lanes(test: Callable[..., None], lanes: tuple[Lane, Lane]) -> None:
    test(lanes) if inspect.signature(test).parameters else test()


@pytest.mark.parametrize("budget", [None, 0, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["pinned", "pageable", "device"])
def test_patches_are_the_cpus_and_restores_are_bit_exact(
    machine: Machine, plans: list[DeltaPlan], budget: int | None, dtype: torch.dtype, place: str
) -> None:
    PATCHING.test_patches_are_the_cpus_and_restores_are_bit_exact(plans, budget, dtype, place)


@pytest.mark.parametrize(
    "test",
    [
        PATCHING.test_convolutions_in_channels_last_keep_their_layout,
        PATCHING.test_lanes_see_patches_and_restores_that_were_queued_before_their_work,
    ],
    ids=lambda test: test.__name__,
)
def test_patching(test: Callable[..., None], machine: Machine, plans: list[DeltaPlan]) -> None:
    test(plans)


@pytest.mark.parametrize(
    "test",
    [
        GRAPHS.test_replays_have_eagers_bits_and_see_weights_patched_in_place,
        GRAPHS.test_results_outlive_the_lanes_next_replays,
        GRAPHS.test_a_lane_captures_while_another_allocates_and_computes,
        GRAPHS.test_two_lanes_replay_one_module_at_once,
    ],
    ids=lambda test: test.__name__,
)
def test_graphs(test: Callable[..., None], lanes: tuple[Lane, Lane]) -> None:
    torch.manual_seed(0)
    part = GRAPHS.Part().eval().requires_grad_(False).to("cuda:0", torch.float16)
    several = {"part": part, "lane": lanes[0]}
    test(**{name: several[name] for name in inspect.signature(test).parameters})
