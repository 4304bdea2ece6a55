"""Checks that neither a LoRA nor its restore captures, traces or compiles anything again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_capturer import FakeCapturer
from serving import LORAS, are_equal, engine, largest_difference, replay, serve, with_adapters

from swiftdiff.pipeline import cuda_graphs
from swiftdiff.systems import served_model

SETS = ((), LORAS[:1], LORAS[1:], LORAS, ())


@pytest.mark.parametrize("kind", ["traced", "cuda_graph", "compiled"])
def test_swaps_of_loras_capture_nothing_and_pictures_stay_right(
    kind: str, tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's graphs are stood in for by ones that a CPU can make, compiled blocks by uncompiled graphs."""
    requests = [with_adapters(1, loras, f"r{number}") for number, loras in enumerate(SETS)]
    with engine(tiny_family / "base") as plain:
        expected = replay(plain, requests, controls)
    assert [outcome.served.graphs_captured for outcome in expected] == [0] * len(SETS)
    if kind == "cuda_graph":
        monkeypatch.setitem(served_model._GRAPHS, "cpu", "cuda_graph")
        monkeypatch.setattr(cuda_graphs, "CudaCapturer", FakeCapturer)
    if kind == "compiled":
        torch._dynamo.reset()
        monkeypatch.setattr(served_model, "_COMPILER", "eager")
    switches = {"compile_blocks": True} if kind == "compiled" else {"graph_replay": True}
    with engine(tiny_family / "base", reuse_invariants=True, **switches) as system:
        found = replay(system, requests, controls)
    for one, other in zip(found, expected, strict=True):
        assert are_equal(one.pictures, other.pictures)
    counts = [outcome.served.graphs_captured for outcome in found]
    assert counts[0] > 0
    assert counts[1:] == [0] * (len(SETS) - 1)


def test_a_new_size_is_captured_and_the_old_one_is_kept(tiny_family: Path, controls: Path) -> None:
    requests = [with_adapters(0, width=side, height=side) for side in (64, 96, 64, 96)]
    with engine(tiny_family / "base", graph_replay=True) as system:
        counts = [outcome.served.graphs_captured for outcome in replay(system, requests, controls)]
    assert all(counts[:2])
    assert counts[2:] == [0, 0]


def test_channels_last_is_exact_up_to_rounding_and_loras_go_into_it(
    tiny_family: Path, controls: Path
) -> None:
    model, asked = tiny_family / "base", with_adapters(2, LORAS)
    with engine(model) as plain:
        expected = serve(plain, asked, controls)
        without = serve(plain, with_adapters(2), controls)
    with engine(model, channels_last=True) as system:
        assert system.exactness == "exact"
        assert largest_difference(serve(system, asked, controls), expected) <= 1
        assert largest_difference(serve(system, with_adapters(2), controls), without) <= 1
    assert not are_equal(expected, without)
