"""Requests that are denoised as one get the pictures that they get alone, and none of them hurts another."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from patience import PATIENCE_S
from serving import (
    LORAS,
    SWITCHES,
    Picture,
    SwiftdiffSystem,
    are_equal,
    engine,
    largest_difference,
    request,
    serve,
    stock,
    weights_of,
    with_adapters,
)

from swiftdiff.adapters.store import AdapterStore, FetchedAdapter
from swiftdiff.errors import RequestError
from swiftdiff.request import ControlNetUse, ImageRequest
from swiftdiff.systems.base import BatchingSystem, OnStep, Preview
from swiftdiff.systems.batch_key import batch_key

TOLERANCE = 1  # of 255; see test_swiftdiff

#: All that requests of one batch may differ in.
OWN: tuple[dict[str, Any], ...] = (
    {"seed": 5},
    {"seed": 9, "prompt": "a b c", "negative_prompt": "dog"},
    {"seed": 77, "prompt": "w x y z", "negative_prompt": "", "num_images": 2},
)


class LeaveError(Exception):
    """Nobody waits any more."""


def alike(num_controlnets: int = 0, loras: Sequence[str] = (), **fields: Any) -> list[ImageRequest]:
    """Return requests that may be one batch, with control images of their own."""
    made = []
    for index, own in enumerate(OWN):
        one = with_adapters(num_controlnets, loras, f"r{index}", **(fields | own))
        image = ("control.png", "other-size.png", "control.png")[index]
        nets = tuple(use.model_copy(update={"image": image}) for use in one.controlnets)
        made.append(one.model_copy(update={"controlnets": nets}))
    return made


WINDOWS = (
    ControlNetUse(id="edges", image="control.png", scale=0.7, end=0.4),
    ControlNetUse(id="depth", image="control.png", start=0.3, end=0.9),
)
KINDS = {
    "adapters": alike(2, LORAS),
    "neither guided nor square": alike(1, LORAS[:1], guidance_scale=1.0, width=96, height=48),
    "windows": [one.model_copy(update={"controlnets": WINDOWS}) for one in alike(num_inference_steps=5)],
}


@pytest.fixture(scope="module")
def expected(tiny_family: Path, controls: Path) -> dict[str, list[tuple[Picture, ...]]]:
    """What stock draws of each request alone."""
    with stock(tiny_family) as system:
        return {kind: [serve(system, one, controls) for one in asked] for kind, asked in KINDS.items()}


@pytest.fixture(scope="module")
def system(tiny_family: Path) -> Iterator[SwiftdiffSystem]:
    with engine(tiny_family, latent_parallelism=True, reuse_invariants=True, prefetch=True) as system:
        yield system


def serve_batch(
    system: SwiftdiffSystem,
    requests: Sequence[ImageRequest],
    images: Path,
    on_steps: Sequence[OnStep | None] | None = None,
) -> list[Any]:
    """Serve requests as one; return their pictures, or why there are none."""
    system.watch(lambda limit: [])
    try:
        results = system.serve_batch(requests, images, on_steps or [None] * len(requests))
    finally:
        system.finish()
    return [result if isinstance(result, Exception) else _pictures(result) for result in results]


def _pictures(served: Any) -> tuple[Picture, ...]:
    pictures = served.images() if callable(served.images) else served.images
    return tuple(np.asarray(picture) for picture in pictures)


def furthest(some: Sequence[Any], others: Sequence[Any]) -> int:
    """Return the largest difference of any request's pictures, of 255."""
    return max(largest_difference(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("switch", ["none", "all"])
def test_each_request_of_a_batch_gets_stocks_pictures(
    expected: dict[str, list[tuple[Picture, ...]]], tiny_family: Path, controls: Path, switch: str
) -> None:
    found = {}
    with engine(tiny_family, **SWITCHES[switch]) as system:
        for kind, asked in KINDS.items():
            batch = serve_batch(system, asked, controls)
            assert [len(pictures) for pictures in batch] == [one.num_images for one in asked]
            found[kind] = furthest(batch, expected[kind])
    assert max(found.values()) <= TOLERANCE, found


def test_what_requests_of_a_batch_differ_in_is_seen_in_their_pictures(
    expected: dict[str, list[tuple[Picture, ...]]],
) -> None:
    for one, other, third in expected.values():
        assert largest_difference(one, other) > 10 * TOLERANCE
        assert largest_difference(one, third[1:]) > 10 * TOLERANCE
        assert largest_difference(third[:1], third[1:]) > 10 * TOLERANCE


def test_a_batch_with_steps_that_draw_noise_draws_each_requests_own(
    tiny_family: Path, controls: Path
) -> None:
    """No scheduler that can be configured draws noise at every step; one that does shows whose is whose."""
    asked = alike(1, num_inference_steps=4)
    with engine(tiny_family) as system:
        config = system._model._pipe.scheduler.config
        system._model._pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(config)
        alone = [serve(system, one, controls) for one in asked]
        together = serve_batch(system, asked, controls)
    assert furthest(together, alone) <= TOLERANCE


def test_a_batch_leaves_the_weights_bit_identical_and_serves_on(
    system: SwiftdiffSystem, controls: Path
) -> None:
    pristine = weights_of(system)
    plain = serve(system, request("plain"), controls)
    serve_batch(system, alike(1, LORAS), controls)
    after = weights_of(system)
    assert all(torch.equal(pristine[key], after[key]) for key in pristine)
    assert are_equal(serve(system, request("plain"), controls), plain)


def test_who_leaves_a_batch_hurts_nobody_and_is_drawn_no_more(
    system: SwiftdiffSystem, controls: Path
) -> None:
    asked = alike(1, LORAS, num_inference_steps=4)
    pristine = weights_of(system)
    untouched = serve_batch(system, asked, controls)
    seen: list[int] = []

    def leave(step: int, num_steps: int, preview: Preview) -> None:
        seen.append(step)
        if step == 2:
            raise LeaveError

    first, left, last = serve_batch(system, asked, controls, [None, leave, None])
    assert isinstance(left, LeaveError)
    assert seen == [0, 1, 2]
    assert are_equal(first, untouched[0])
    assert are_equal(last, untouched[2])
    after = weights_of(system)
    assert all(torch.equal(pristine[key], after[key]) for key in pristine)


def test_a_batch_that_all_have_left_ends_at_once(system: SwiftdiffSystem, controls: Path) -> None:
    steps: list[int] = []

    def leave_at(wanted: int) -> OnStep:
        def on_step(step: int, num_steps: int, preview: Preview) -> None:
            steps.append(step)
            if step == wanted:
                raise LeaveError

        return on_step

    with pytest.raises(LeaveError):
        serve_batch(system, alike(num_inference_steps=9), controls, [leave_at(step) for step in (1, 3, 2)])
    assert max(steps) == 3


def test_previews_show_each_request_its_own_pictures(system: SwiftdiffSystem, controls: Path) -> None:
    asked = alike(1, num_inference_steps=3)

    def looking(into: list[Picture]) -> OnStep:
        def on_step(step: int, num_steps: int, preview: Preview) -> None:
            if step == 2:
                into.extend(np.asarray(picture) for picture in preview())

        return on_step

    together: list[list[Picture]] = [[] for _ in asked]
    serve_batch(system, asked, controls, [looking(into) for into in together])
    for one, seen in zip(asked, together, strict=True):
        alone: list[Picture] = []
        serve_batch(system, [one], controls, [looking(alone)])
        assert len(seen) == one.num_images
        assert largest_difference(seen, alone) <= TOLERANCE


def test_a_request_whose_picture_is_no_number_fails_alone(
    system: SwiftdiffSystem, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = alike()
    good = serve_batch(system, asked, controls)
    denoise = system._model.denoise

    def spoil(*arguments: Any, **options: Any) -> torch.Tensor:
        latents = denoise(*arguments, **options).clone()
        latents[1] = float("nan")
        return latents

    monkeypatch.setattr(system._model, "denoise", spoil)
    first, spoilt, last = serve_batch(system, asked, controls)
    assert isinstance(spoilt, RequestError)
    assert "request r1" in str(spoilt)
    assert are_equal(first, good[0])
    assert are_equal(last, good[2])


def test_a_lora_that_changes_text_encoders_and_comes_late_changes_every_prompt(
    tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held until step 1, it makes all prompts of the batch be encoded again."""
    asked = alike(0, ("gold",), num_inference_steps=3)

    def pictures(together: bool) -> list[Any]:
        second_step = threading.Event()
        fetch = AdapterStore.fetch_lora

        def held(self: AdapterStore, adapter_id: str) -> FetchedAdapter:
            assert second_step.wait(PATIENCE_S)
            return fetch(self, adapter_id)

        def release(step: int, num_steps: int, preview: Preview) -> None:
            if step == 1:
                second_step.set()

        drawn = []
        for batch in [asked] if together else [[one] for one in asked]:
            second_step.clear()
            with engine(tiny_family, bal_k=1) as system, monkeypatch.context() as patch:
                patch.setattr(AdapterStore, "fetch_lora", held)
                drawn += serve_batch(system, batch, controls, [release] * len(batch))
        return drawn

    assert furthest(pictures(True), pictures(False)) <= TOLERANCE


def test_loads_go_on_until_the_last_of_a_batch_has_given_up(
    tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go = threading.Event(), threading.Event()
    fetch = AdapterStore.fetch_lora

    def held(self: AdapterStore, adapter_id: str) -> FetchedAdapter:
        loading.set()
        assert go.wait(PATIENCE_S)
        return fetch(self, adapter_id)

    monkeypatch.setattr(AdapterStore, "fetch_lora", held)
    asked = alike(0, ("gold",))
    with engine(tiny_family) as system:

        def give_up() -> None:
            assert loading.wait(PATIENCE_S)
            system.give_up("r0")
            system.give_up("r1")
            go.set()

        thread = threading.Thread(target=give_up)
        thread.start()
        pictures = serve_batch(system, asked, controls)
        thread.join()
    assert [len(each) for each in pictures] == [1, 1, 2]


def test_who_was_given_up_before_the_service_began_waits_for_no_adapter(
    tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    fetch = AdapterStore.fetch_lora

    def held(self: AdapterStore, adapter_id: str) -> FetchedAdapter:
        assert go.wait(PATIENCE_S)
        return fetch(self, adapter_id)

    monkeypatch.setattr(AdapterStore, "fetch_lora", held)
    asked = alike(0, ("gold",))[:1]
    with engine(tiny_family) as system:
        system.give_up("r0")
        with pytest.raises(CancelledError):
            serve_batch(system, asked, controls)
        go.set()
        assert len(serve_batch(system, asked, controls)) == 1


def test_every_request_of_a_batch_has_a_record_of_its_own(system: SwiftdiffSystem, controls: Path) -> None:
    system.watch(lambda limit: [])
    results = system.serve_batch(alike(1, LORAS), controls, [None] * 3)
    system.finish()
    for served in results:
        assert not isinstance(served, Exception)
        assert {adapter.id for adapter in served.adapters} == {"edges", *LORAS}
        assert {"text_encode", "denoise", "vae_decode"} <= set(served.stages)
    assert len({id(served.stages) for served in results}) == 3  # type: ignore[union-attr]


def test_requests_that_are_not_alike_are_no_batch(system: SwiftdiffSystem, controls: Path) -> None:
    assert isinstance(system, BatchingSystem)
    one = with_adapters(1, LORAS)
    for field, value in (
        ("num_inference_steps", 3),
        ("guidance_scale", 4.0),
        ("width", 96),
        ("loras", one.loras[:1]),
        ("controlnets", (one.controlnets[0].model_copy(update={"scale": 0.5}),)),
        ("controlnets", (one.controlnets[0].model_copy(update={"end": 0.5}),)),
    ):
        other = one.model_copy(update={field: value})
        assert batch_key(one, 64) != batch_key(other, 64)
        with pytest.raises(ValueError, match="batch_key"):
            system.serve_batch([one, other], controls, [None, None])
    assert batch_key(one, 64) == batch_key(one.model_copy(update={"width": 64, "height": 64}), 64)


def test_a_request_tells_how_far_it_is_while_it_is_served(system: SwiftdiffSystem, controls: Path) -> None:
    told: dict[str, float] = {}

    def look(step: int, num_steps: int, preview: Preview) -> None:
        if step == 2:
            told.update(system.stages_so_far("r1"))
            assert system.stages_so_far("another") == {}

    serve_batch(system, alike(0, LORAS, num_inference_steps=4), controls, [look, None, None])
    assert {"text_encode", "lora_patch", "denoise"} <= set(told)
    assert min(told["text_encode"], told["lora_patch"], told["denoise"]) > 0
    assert "vae_decode" not in told
    assert system.stages_so_far("r1") == {}
