"""Checks the engine on GPUs against stock on the same GPU, with each switch alone and with all of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import NEEDS_GPU, SWITCHES, TOLERANCE, on_gpu
from serving import (
    LORAS,
    Picture,
    are_equal,
    largest_difference,
    replay,
    serve,
    weights_of,
    with_adapters,
)

from swiftdiff.config import ServingConfig
from swiftdiff.systems import build_system

pytestmark = NEEDS_GPU


def stock_pictures(model: Path, controls: Path, dtype: Any, num_controlnets: int) -> tuple[Picture, ...]:
    config = ServingConfig(
        name="stock", engine="diffusers", model=str(model), device="cuda:0", dtype=dtype, threads=1
    )
    system = build_system(config)
    try:
        return serve(system, with_adapters(num_controlnets, LORAS), controls)
    finally:
        system.close()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", SWITCHES)
def test_pictures_are_stocks_up_to_rounding(name: str, dtype: str, tiny_family: Path, controls: Path) -> None:
    model = tiny_family / "base"
    with on_gpu(model, dtype, **SWITCHES[name]) as system:
        found = serve(system, with_adapters(3, LORAS), controls)
    expected = stock_pictures(model, controls, dtype, 3)
    assert largest_difference(found, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_swaps_of_loras_capture_nothing_and_leave_no_bit_behind(
    dtype: str, tiny_family: Path, controls: Path
) -> None:
    sets = ((), LORAS[:1], LORAS[1:], LORAS, (), LORAS)
    requests = [with_adapters(2, loras, f"r{number}") for number, loras in enumerate(sets)]
    with on_gpu(tiny_family / "base", dtype, **SWITCHES["all"]) as system:
        before = weights_of(system)
        outcomes = replay(system, requests, controls)
        after = weights_of(system)
        again = replay(system, requests, controls)
    counts = [outcome.served.graphs_captured for outcome in outcomes]
    assert counts[0] > 0
    assert counts[1:] == [0] * (len(sets) - 1)
    assert are_equal(outcomes[0].pictures, outcomes[4].pictures)
    assert are_equal(outcomes[3].pictures, outcomes[5].pictures)
    assert all(are_equal(a.pictures, b.pictures) for a, b in zip(outcomes, again, strict=True))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_pictures_do_not_depend_on_where_pristine_copies_lie(tiny_family: Path, controls: Path) -> None:
    results = []
    for budget in (None, 0.0, 0.05):
        with on_gpu(tiny_family / "base", "float16", pristine_device_mb=budget) as system:
            serve(system, with_adapters(1, LORAS), controls)
            results.append(serve(system, with_adapters(1, LORAS[:1]), controls))
    assert are_equal(results[0], results[1])
    assert are_equal(results[0], results[2])


def test_a_float16_vae_that_would_overflow_decodes_in_float32(tiny_family: Path, controls: Path) -> None:
    with on_gpu(tiny_family / "base", "float16") as system:
        assert system._model._pipe.vae.dtype == torch.float32
        assert system.exactness == "exact"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_compiled_blocks_are_near_and_see_loras_without_compiling_again(
    tiny_family: Path, controls: Path
) -> None:
    sets = (LORAS[:1], (), LORAS)
    requests = [with_adapters(1, loras, f"r{number}") for number, loras in enumerate(sets)]
    with on_gpu(tiny_family / "base", graph_replay=True, compile_blocks=True) as system:
        found = replay(system, requests, controls)
    with on_gpu(tiny_family / "base") as system:
        expected = replay(system, requests, controls)
    assert [outcome.served.graphs_captured for outcome in found][1:] == [0, 0]
    for one, other in zip(found, expected, strict=True):
        assert largest_difference(one.pictures, other.pictures) <= TOLERANCE["float32"]


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
@pytest.mark.parametrize("precision", ["int8", "float8"])
def test_8_bit_products_see_loras_and_capture_nothing_again(
    precision: str, tiny_family: Path, controls: Path
) -> None:
    if precision == "float8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs compute capability 8.9")
    sets = (LORAS[:1], (), LORAS, LORAS[:1])
    requests = [with_adapters(1, loras, f"r{number}") for number, loras in enumerate(sets)]
    switches = {"graph_replay": True, "quantized_weights": precision, "compile_blocks": precision == "int8"}
    with on_gpu(tiny_family / "base", "bfloat16", **switches) as system:
        assert system.exactness == "approximate"
        found = replay(system, requests, controls)
    assert [outcome.served.graphs_captured for outcome in found][1:] == [0, 0, 0]
    assert are_equal(found[0].pictures, found[3].pictures)
    assert not are_equal(found[0].pictures, found[1].pictures)
