"""Checks which lanes an engine has and which of them a request gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.workplace import Workplace

CPU = torch.device("cpu")


@contextmanager
def workplace(
    names: Sequence[str] | None = None, num_threads: int = 4, *, latent: bool = True, offload: bool = True
) -> Iterator[Workplace]:
    place = Workplace(names, CPU, num_threads, latent_parallelism=latent, controlnet_offload=offload)
    try:
        yield place
    finally:
        place.close()


def threads_of(lane: Lane) -> int:
    return lane.submit(torch.get_num_threads).result()


def described(placement: Placement) -> tuple[list[tuple[str, int]], list[str]]:
    """Names and threads of the UNet's lanes, and names of the lanes that ControlNets are sent to."""
    unet = [(lane.name, threads_of(lane)) for lane in placement.unet]
    return unet, [lane.name for lane in placement.controlnets]


def test_a_cpu_is_two_lanes_that_share_its_threads_and_a_wide_one_for_what_cannot_be_split() -> None:
    with workplace() as place:
        assert [(lane.name, threads_of(lane)) for lane in place.lanes] == [
            ("cpu:0", 2),
            ("cpu:1", 2),
            ("cpu", 4),
        ]
        assert place.devices == (CPU,)


BOTH = [("cpu:0", 2), ("cpu:1", 2)]
FIRST = [("cpu:0", 2)]
WIDE = [("cpu", 4)]


@pytest.mark.parametrize(
    ("switches", "guided", "nets", "expected"),
    [
        ({}, True, 2, (BOTH, ["cpu:0", "cpu:1"])),
        ({"offload": False}, True, 2, (BOTH, [])),
        ({}, True, 0, (BOTH, ["cpu:0", "cpu:1"])),
        ({}, False, 2, (FIRST, ["cpu:1", "cpu:0"])),
        ({"latent": False}, True, 2, (FIRST, ["cpu:1", "cpu:0"])),
        ({}, False, 0, (WIDE, [])),
        ({"offload": False}, False, 2, (WIDE, [])),
        ({"latent": False}, True, 0, (WIDE, [])),
        ({"latent": False, "offload": False}, True, 3, (WIDE, [])),
    ],
)
def test_a_request_gets_the_lanes_that_its_parts_can_use(
    switches: dict[str, bool], guided: bool, nets: int, expected: tuple[list[tuple[str, int]], list[str]]
) -> None:
    with workplace(**switches) as place:
        assert described(place.place(guided=guided, num_controlnets=nets)) == expected


def test_lanes_besides_the_two_halves_are_for_controlnets() -> None:
    with workplace(["cpu:0", "cpu:1", "cpu:2", "cpu:3"]) as place:
        guided = place.place(guided=True, num_controlnets=2)
        assert described(guided) == ([("cpu:0", 1), ("cpu:1", 1)], ["cpu:2", "cpu:3"])
        plain = place.place(guided=False, num_controlnets=2)
        assert described(plain) == ([("cpu:0", 1)], ["cpu:1", "cpu:2", "cpu:3", "cpu:0"])


def test_one_thread_is_one_lane_that_does_all() -> None:
    with workplace(num_threads=1) as place:
        assert [lane.name for lane in place.lanes] == ["cpu:0"]
        for guided in (True, False):
            placement = place.place(guided=guided, num_controlnets=3)
            assert described(placement) == ([("cpu:0", 1)], [])


def test_more_lanes_than_threads_have_a_thread_each() -> None:
    with workplace(["cpu:0", "cpu:1", "cpu:2"], num_threads=2) as place:
        assert [threads_of(lane) for lane in place.lanes] == [1, 1, 1, 2]


def test_the_caller_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    with workplace(num_threads=before + 3):
        assert torch.get_num_threads() == before


def test_a_lane_that_is_no_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="gpu:0"):
        Workplace(["cpu:0", "gpu:0"], CPU, 2, latent_parallelism=True, controlnet_offload=True)


def test_closing_ends_all_lanes() -> None:
    with workplace() as place:
        lanes = place.lanes
    for lane in lanes:
        with pytest.raises(RuntimeError, match="closed"):
            lane.submit(int)
