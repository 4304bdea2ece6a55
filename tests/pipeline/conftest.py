"""A tiny SDXL with ControlNets, and two lanes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from families import build_base, build_controlnet
from pipeline_family import Family

from swiftdiff.pipeline.lane import Lane


@pytest.fixture
def family() -> Family:
    base = build_base()
    return Family(base, [build_controlnet(base.unet, 100 + seed) for seed in range(3)])


@pytest.fixture
def lanes() -> Iterator[tuple[Lane, Lane]]:
    with Lane("cpu:0", num_threads=1) as first, Lane("cpu:1", num_threads=1) as second:
        yield first, second


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Stock must use as many threads as a lane does, or sums are split and rounded otherwise."""
    torch.set_num_threads(1)
