"""The engine's approximate switches: off is exact, on is declared, and on they go with everything else.

What each leaves out is compared with stock in ``tests/pipeline/test_approximations.py``.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import (
    LORAS,
    SWITCHES,
    Outcome,
    are_equal,
    engine,
    engine_config,
    largest_difference,
    replay,
    request,
    weights_of,
    with_adapters,
)

from swiftdiff.config import AdapterStoreConfig, StoreEmulationConfig
from swiftdiff.pipeline import graphs
from swiftdiff.request import ControlNetUse, ImageRequest
from swiftdiff.systems import build_system

STEPS = 6
ALL = SWITCHES["all"]
APPROXIMATE: dict[str, dict[str, Any]] = {
    "controlnet_reuse": {"controlnet_reuse": 2},
    "guidance_interval": {"guidance_interval": (1.0, 4.0)},
    "step_cache": {"step_cache": 2},
    "everything": {"controlnet_reuse": 2, "guidance_interval": (1.0, 4.0), "step_cache": 3},
}
EXACT: dict[str, dict[str, Any]] = {
    "of one step": {"controlnet_reuse": 1, "step_cache": 1},
    "a full interval": {"guidance_interval": (0.0, 1000.0)},
}
REQUESTS = [
    with_adapters(2, LORAS, "adapters", num_inference_steps=STEPS),
    with_adapters(1, (), "control", num_inference_steps=STEPS, num_images=2, width=96, height=48),
    with_adapters(0, LORAS[:1], "lora", num_inference_steps=STEPS),
    request("plain", num_inference_steps=STEPS),
    request(
        "windows",
        num_inference_steps=STEPS,
        controlnets=(
            ControlNetUse(id="edges", image="control.png", scale=0.7, end=0.4),
            ControlNetUse(id="depth", image="other-size.png", start=0.3, end=0.9),
        ),
    ),
    with_adapters(1, LORAS, "unguided", num_inference_steps=STEPS, guidance_scale=1.0),
]


def serve_all(
    family: Path, controls: Path, requests: list[ImageRequest] = REQUESTS, **switches: Any
) -> dict[str, Outcome]:
    with engine(family, **switches) as system:
        outcomes = replay(system, requests, controls)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    return {one.request_id: outcome for one, outcome in zip(requests, outcomes, strict=True)}


@pytest.fixture(scope="module")
def exact(tiny_family: Path, controls: Path) -> dict[str, Outcome]:
    return serve_all(tiny_family, controls, **ALL)


@pytest.mark.parametrize("switches", EXACT.values(), ids=EXACT)
def test_switches_that_leave_out_nothing_change_no_bit(
    switches: dict[str, Any], exact: dict[str, Outcome], tiny_family: Path, controls: Path
) -> None:
    for name, outcome in serve_all(tiny_family, controls, **ALL, **switches).items():
        assert are_equal(outcome.pictures, exact[name].pictures), name


@pytest.mark.parametrize("name", APPROXIMATE)
def test_pictures_differ_where_something_was_left_out_and_stay_near(
    name: str, exact: dict[str, Outcome], tiny_family: Path, controls: Path
) -> None:
    outcomes = serve_all(tiny_family, controls, **ALL, **APPROXIMATE[name])
    untouched = {
        "controlnet_reuse": {"lora", "plain"},  # no ControlNet
        "guidance_interval": {"unguided"},
    }.get(name, set())
    for request_id, outcome in outcomes.items():
        expected = exact[request_id].pictures
        if request_id in untouched:
            assert are_equal(outcome.pictures, expected), request_id
            continue
        assert largest_difference(outcome.pictures, expected) > 1, request_id
        for some, other in zip(outcome.pictures, expected, strict=True):
            assert np.abs(some.astype(float) - other.astype(float)).mean() < 32, request_id


@pytest.mark.parametrize("name", APPROXIMATE)
@pytest.mark.parametrize("exact_switches", ["none", "latent parallelism", "offload", "graphs", "kernels"])
def test_every_exact_switch_changes_nothing_but_rounding(
    name: str, exact_switches: str, tiny_family: Path, controls: Path
) -> None:
    requests = REQUESTS[:2]
    expected = serve_all(tiny_family, controls, requests, **ALL, **APPROXIMATE[name])
    outcomes = serve_all(tiny_family, controls, requests, **SWITCHES[exact_switches], **APPROXIMATE[name])
    for request_id, outcome in outcomes.items():
        assert largest_difference(outcome.pictures, expected[request_id].pictures) <= 1, request_id


def test_nothing_is_kept_from_one_request_to_the_next(tiny_family: Path, controls: Path) -> None:
    again = [one.model_copy(update={"request_id": f"{one.request_id}-again"}) for one in REQUESTS]
    with engine(tiny_family, **ALL, **APPROXIMATE["everything"]) as system:
        pristine = weights_of(system)
        several = replay(system, [*REQUESTS, *reversed(again)], controls)
        assert all(np.array_equal(value, weights_of(system)[key]) for key, value in pristine.items())
    for first, second in zip(several[: len(REQUESTS)], reversed(several[len(REQUESTS) :]), strict=True):
        assert are_equal(first.pictures, second.pictures)


def test_each_is_declared(tiny_family: Path) -> None:
    with engine(tiny_family, **ALL) as system:
        assert system.exactness == "exact"
    for switches in ({"controlnet_reuse": 2}, {"guidance_interval": (0.0, 1000.0)}, {"step_cache": 2}):
        with engine(tiny_family, **switches) as system:
            assert system.exactness == "approximate"


def test_loras_that_arrive_midway_act_on_deep_features_too(tiny_family: Path, controls: Path) -> None:
    asked = [with_adapters(0, LORAS, "late", num_inference_steps=STEPS)]
    switches = SWITCHES["all"] | {"graph_replay": False} | APPROXIMATE["everything"]
    pictures = {}
    for step_cache in (1, 6):
        config = engine_config(tiny_family, **(switches | {"bal_k": 4, "step_cache": step_cache}))
        slow = AdapterStoreConfig(emulate=StoreEmulationConfig(latency_ms=3000))
        for name, store in (("late", slow), ("early", AdapterStoreConfig())):
            system = build_system(config.model_copy(update={"adapters": store}))
            try:
                (outcome,) = replay(system, asked, controls)
            finally:
                system.close()
            assert outcome.error is None, outcome.error
            pictures[name, step_cache] = outcome.pictures
            steps = {adapter.step_patched for adapter in outcome.served.adapters}
            assert name == "early" or steps == {4}
    # The patch at step 4 renews the deep features, so that the last steps show the LoRAs.
    for some, other in combinations(pictures.values(), 2):
        assert largest_difference(some, other) > 1


@pytest.mark.parametrize(
    "switches",
    [
        {"step_cache": 2},
        {"controlnet_reuse": 2},
        {"step_cache": 3, "controlnet_reuse": 2},
        {"step_cache": 2, "controlnet_reuse": 4},
        {"step_cache": 2, "guidance_interval": (0.3, 2.0)},
    ],
)
def test_warming_up_captures_all_that_requests_run(
    switches: dict[str, Any], tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[str] = []
    trace = graphs._trace

    def noting(module: Any, arguments: Any) -> Any:
        captured.append(type(module).__name__)
        return trace(module, arguments)

    monkeypatch.setattr(graphs, "_trace", noting)
    requests = [
        with_adapters(num, (), f"{num}-{scale}", num_inference_steps=STEPS, guidance_scale=scale)
        for num in (0, 2)
        for scale in (5.0, 1.0)
    ]
    with engine(tiny_family, **ALL, **switches) as system:
        system.warm_up()
        assert captured
        captured.clear()
        for outcome in replay(system, requests, controls):
            assert outcome.error is None, outcome.error
    assert not captured
