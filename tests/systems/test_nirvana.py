"""Approximate caching: a picture goes on from another's latents, and the records say from where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import write_requests
from serving import (
    LORAS,
    Outcome,
    are_equal,
    largest_difference,
    replay,
    request,
    stock,
    with_adapters,
)

from swiftdiff.config import NirvanaConfig, ServingConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import resume_run, start_run
from swiftdiff.request import ControlNetUse, ImageRequest, LatentCacheRecord, RequestRecord
from swiftdiff.systems import ServingSystem, build_system

ALWAYS = ((-1.0, 0.5),)  # any prompt's latents are taken
ONLY_EQUAL = ((0.9999, 0.5),)
WINDOWS = (
    ControlNetUse(id="edges", image="control.png", scale=0.7, end=0.4),
    ControlNetUse(id="depth", image="other-size.png", start=0.3, end=0.9),
    ControlNetUse(id="layout", image="control.png", start=0.65),
)
KINDS = {
    "plain": request(num_inference_steps=6),
    "odd steps": request(num_inference_steps=7, width=96, height=48),
    "adapters": with_adapters(2, LORAS, num_inference_steps=6),
    "windows": request(controlnets=WINDOWS, num_inference_steps=10),
    "one window that is over": request(controlnets=WINDOWS[:1], num_inference_steps=10),
    "no guidance": request(guidance_scale=1.0, num_inference_steps=6, num_images=2),
}


def nirvana_config(
    family: Path, skips: Any = ALWAYS, scheduler: Any = "euler", **fields: Any
) -> ServingConfig:
    return ServingConfig(
        name="nirvana",
        engine="nirvana",
        model=str(family),
        scheduler=scheduler,
        threads=1,
        nirvana=NirvanaConfig(skips=skips, **fields),
    )


@contextmanager
def nirvana(
    family: Path, skips: Any = ALWAYS, scheduler: Any = "euler", **fields: Any
) -> Iterator[ServingSystem]:
    system = build_system(nirvana_config(family, skips, scheduler, **fields))
    try:
        yield system
    finally:
        system.close()


def again(one: ImageRequest, **changes: Any) -> ImageRequest:
    return one.model_copy(update={"request_id": "again", **changes})


def cached(outcome: Outcome) -> LatentCacheRecord:
    assert outcome.error is None, outcome.error
    record = outcome.served.latent_cache
    assert isinstance(record, LatentCacheRecord)
    return record


@pytest.mark.parametrize("scheduler", ["euler", "ddim"])
@pytest.mark.parametrize("one", KINDS.values(), ids=KINDS)
def test_going_on_from_its_own_latents_gives_the_stock_picture(
    one: ImageRequest, scheduler: str, tiny_family: Path, controls: Path
) -> None:
    with stock(tiny_family, scheduler) as system:
        (expected,) = replay(system, [one], controls)
    with nirvana(tiny_family, scheduler=scheduler) as system:
        first, second = replay(system, [one, again(one)], controls)
    assert cached(first).skipped_steps == 0
    assert cached(first).similarity is None
    assert are_equal(first.pictures, expected.pictures)
    assert cached(second).skipped_steps == round(one.num_inference_steps / 2)
    assert cached(second).similarity == pytest.approx(1.0)
    # Fusing and unfusing LoRAs leaves the weights off by rounding.
    assert largest_difference(second.pictures, expected.pictures) <= (1 if one.loras else 0)


def test_a_scheduler_with_memory_begins_without_it(tiny_family: Path, controls: Path) -> None:
    one = request(num_inference_steps=8)
    with nirvana(tiny_family, scheduler="dpmpp_2m") as system:
        first, second = replay(system, [one, again(one)], controls)
    assert cached(second).skipped_steps == 4
    assert 0 < largest_difference(first.pictures, second.pictures) < 128


def test_another_prompt_goes_on_from_the_latents_and_ends_elsewhere(
    tiny_family: Path, controls: Path
) -> None:
    one, other = (
        request(num_inference_steps=6),
        request("other", prompt="b w e", seed=9, num_inference_steps=6),
    )
    with nirvana(tiny_family) as system:
        first, hit = replay(system, [one, other], controls)
    with stock(tiny_family) as system:
        (expected,) = replay(system, [other], controls)
    record = cached(hit)
    assert record.skipped_steps == 3
    assert record.similarity is not None
    assert -1 <= record.similarity < 0.9999
    for pictures in (first.pictures, expected.pictures):
        assert not are_equal(hit.pictures, pictures)


def test_a_prompt_not_similar_enough_begins_with_noise_and_is_kept_itself(
    tiny_family: Path, controls: Path
) -> None:
    one, other = request(num_inference_steps=6), request("other", prompt="b w e", num_inference_steps=6)
    with nirvana(tiny_family, ONLY_EQUAL) as system:
        outcomes = replay(system, [one, other, again(other), again(one)], controls)
    with stock(tiny_family) as system:
        (expected,) = replay(system, [other], controls)
    assert [cached(outcome).skipped_steps for outcome in outcomes] == [0, 0, 3, 3]
    similarity = cached(outcomes[1]).similarity
    assert similarity is not None
    assert similarity < 0.9999
    assert are_equal(outcomes[1].pictures, expected.pictures)
    assert are_equal(outcomes[2].pictures, expected.pictures)


@pytest.mark.parametrize("embedding", ["pooled", "tokens"])
def test_prompts_are_compared_by_either_embedding(embedding: str, tiny_family: Path, controls: Path) -> None:
    one = request(num_inference_steps=4)
    with nirvana(tiny_family, embedding=embedding) as system:
        _, near, far = replay(
            system, [one, again(one, prompt="a red cab"), again(one, prompt="z z z z")], controls
        )
    nearest, farthest = cached(near).similarity, cached(far).similarity
    assert nearest is not None
    assert farthest is not None
    assert 1 > nearest > farthest > -1


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 96},
        {"num_inference_steps": 8},
        {"guidance_scale": 2.0},
        {"negative_prompt": "a dog"},
        {"loras": with_adapters(0, LORAS[:1]).loras},
        {"loras": ()},
        {"controlnets": ()},
        {"controlnets": (ControlNetUse(id="edges", image="other-size.png", scale=0.8),)},
        {"controlnets": (ControlNetUse(id="edges", image="control.png", scale=0.7),)},
        {"num_images": 2},
    ],
)
def test_requests_that_ask_for_something_else_are_not_compared(
    changes: dict[str, Any], tiny_family: Path, controls: Path
) -> None:
    one = with_adapters(1, LORAS, num_inference_steps=4)
    with nirvana(tiny_family) as system:
        _, other = replay(system, [one, again(one, **changes)], controls)
    assert cached(other).similarity is None
    assert cached(other).skipped_steps == 0


def test_the_same_requests_in_the_same_order_give_the_same_pictures(
    tiny_family: Path, controls: Path
) -> None:
    prompts = ("a red cat", "a red cab", "b w e", "z z z")
    requests = [request(f"r{i}", prompt=prompts[i % 4], seed=i, num_inference_steps=4) for i in range(8)]
    several = []
    for _ in range(2):
        with nirvana(tiny_family, ((0.5, 0.25), (0.9, 0.5)), cache_mb=0.01) as system:
            several.append(replay(system, requests, controls))
    for one, other in zip(*several, strict=True):
        assert cached(one) == cached(other)
        assert cached(one).cached_bytes <= 10_000
        assert are_equal(one.pictures, other.pictures)


def test_a_cache_of_nothing_serves_as_stock_does(tiny_family: Path, controls: Path) -> None:
    one = request(num_inference_steps=4)
    with nirvana(tiny_family, cache_mb=0.0) as system:
        assert system.exactness == "approximate"
        first, second = replay(system, [one, again(one)], controls)
    assert cached(second).similarity is None
    assert cached(second).cached_bytes == 0
    assert are_equal(first.pictures, second.pictures)


def test_a_request_that_fails_leaves_nothing_and_spoils_nothing(tiny_family: Path, controls: Path) -> None:
    one = request(num_inference_steps=4)
    broken = again(one, guidance_scale=1e38, seed=7)
    with nirvana(tiny_family) as system:
        outcomes = replay(system, [broken, again(broken), one, again(one)], controls)
    assert all(outcome.error is not None for outcome in outcomes[:2])
    assert cached(outcomes[2]).cached_bytes > 0
    assert cached(outcomes[3]).skipped_steps == 2
    assert are_equal(outcomes[2].pictures, outcomes[3].pictures)


def test_records_tell_of_hits_and_a_resumed_run_begins_with_an_empty_cache(
    tiny_family: Path, tmp_path: Path
) -> None:
    requests = [request(f"r{i}", num_inference_steps=4) for i in range(4)]
    trace = write_requests(tmp_path / "trace.jsonl", requests)
    config = nirvana_config(tiny_family)
    ended = start_run(trace, config, ReplayOptions(), tmp_path / "run", argv=[])
    assert ended.outcome == "complete"
    assert skipped(tmp_path / "run") == [0, 2, 2, 2]
    lines = (tmp_path / "run" / "requests.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "requests.jsonl").write_text("".join(lines[:2]))  # as if it had been cut off there
    assert resume_run(tmp_path / "run", None).outcome == "complete"
    assert skipped(tmp_path / "run") == [0, 2, 0, 2]


def skipped(run: Path) -> list[int]:
    lines = (run / "requests.jsonl").read_text().splitlines()
    records = [RequestRecord.model_validate_json(line) for line in lines]
    assert all("cache_search" in record.stages for record in records)
    return [record.latent_cache.skipped_steps for record in records if record.latent_cache is not None]
