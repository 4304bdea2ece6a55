"""A picture never depends on what is served before it, after it or beside it, nor on how long things take."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from serving import (
    SWITCHES,
    Outcome,
    Picture,
    are_equal,
    engine,
    replay,
    request,
    serve,
    weights_of,
    with_adapters,
)

from swiftdiff.adapters.store import AdapterStore
from swiftdiff.errors import AdapterError, RequestError, SwiftdiffError
from swiftdiff.pipeline.lane import Lane
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse

#: Everything at once, with caches so small that adapters come and go.
ON = SWITCHES["all"] | {"lora_cache_mb": 0.05, "controlnet_cache_mb": 0.0}

GOOD = (
    request("plain"),
    with_adapters(0, ("gold",), "text"),
    with_adapters(0, ("gold",), "text-again", seed=6, num_images=2),
    with_adapters(1, ("neon",), "unet"),
    with_adapters(2, ("kohya", "gold"), "several"),
    with_adapters(0, ("gold", "kohya"), "other-order"),
    with_adapters(3, (), "nets"),
    request("unguided", guidance_scale=1.0, prompt="w x y"),
)
BROKEN = {
    "nan": (AdapterError, r"unet\.\S+lora_[AB]\.weight in nan\.safetensors holds NaN"),
    "truncated": (AdapterError, r"truncated\.safetensors is truncated"),
    "misshapen": (AdapterError, r"unet\.\S+ in misshapen\.safetensors"),
    "other-base": (AdapterError, r"unet\.other\.\S+ in other-base\.safetensors"),
    "huge": (RequestError, r"ended in NaN or infinity"),
    "not-there": (AdapterError, r"LoRA 'not-there'"),
}
BAD = (
    *(request(f"bad-{name}", loras=(LoraUse(id="gold"), LoraUse(id=name))) for name in BROKEN),
    request("bad-net", controlnets=(ControlNetUse(id="egdes", image="control.png"),)),
    request(
        "bad-image", loras=(LoraUse(id="gold"),), controlnets=(ControlNetUse(id="edges", image="no.png"),)
    ),
)


def break_loras(family: Path) -> None:
    """Write LoRAs that are each wrong in one way."""
    good = load_file(family / "loras/neon.safetensors")
    key = sorted(good)[3]
    spoilt = good[key].clone()
    spoilt[0, 0] = float("nan")
    files: dict[str, dict[str, torch.Tensor]] = {
        "nan": good | {key: spoilt},
        "misshapen": {name: torch.cat([value, value], dim=1) for name, value in good.items()},
        "other-base": {name.replace("unet.", "unet.other."): value for name, value in good.items()},
        "huge": {name: value * 1e18 for name, value in good.items()},
        "truncated": good,
    }
    for name, weights in files.items():
        save_file(weights, family / f"loras/{name}.safetensors")
    path = family / "loras/truncated.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


@dataclass(frozen=True)
class World:
    """A family with broken LoRAs in it, and each good request's pictures from a fresh system of its own."""

    family: Path
    controls: Path
    alone: dict[str, tuple[Picture, ...]]

    def serve(self, requests: tuple[ImageRequest, ...] | list[ImageRequest], **on: Any) -> list[Outcome]:
        """Serve a stream on one new system, and check that its weights are pristine afterwards."""
        with engine(self.family, **(ON | on)) as system:
            before = weights_of(system)
            outcomes = replay(system, requests, self.controls)
            after = weights_of(system)
        assert all(torch.equal(after[key], before[key]) for key in before)
        return outcomes

    def check(self, requests: tuple[ImageRequest, ...] | list[ImageRequest], outcomes: list[Outcome]) -> None:
        """Check that good requests have the pictures they have alone, and bad ones none."""
        for one, outcome in zip(requests, outcomes, strict=True):
            if one.request_id in self.alone:
                assert outcome.error is None, (one.request_id, outcome.error)
                assert are_equal(outcome.pictures, self.alone[one.request_id]), one.request_id
            else:
                assert isinstance(outcome.error, SwiftdiffError), one.request_id


@pytest.fixture(scope="module")
def world(tiny_family: Path, controls: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    family = Path(shutil.copytree(tiny_family, tmp_path_factory.mktemp("world") / "tiny"))
    break_loras(family)
    alone = {}
    for one in GOOD:
        with engine(family, **SWITCHES["all"]) as system:
            alone[one.request_id] = serve(system, one, controls)
    return World(family, controls, alone)


def test_the_requests_pictures_are_all_different(world: World) -> None:
    firsts = [pictures[0] for pictures in world.alone.values()]
    assert len({picture.tobytes() for picture in firsts}) == len(GOOD)


@pytest.mark.parametrize("order", ["as written", "backwards"])
def test_a_stream_that_waits_as_a_whole_gives_the_pictures_of_requests_served_alone(
    world: World, order: str
) -> None:
    requests = list(GOOD if order == "as written" else reversed(GOOD))
    world.check(requests, world.serve(requests))


def test_failures_in_between_hurt_nobody_else(world: World) -> None:
    requests = [GOOD[0]]
    for index, bad in enumerate(BAD):
        requests += [bad, GOOD[(index + 1) % len(GOOD)]]
    world.check(requests, world.serve(requests))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_lora_is_named_with_its_file_and_key(world: World, name: str) -> None:
    error, message = BROKEN[name]
    asked = next(one for one in BAD if one.request_id == f"bad-{name}")
    after = GOOD[0]
    outcomes = world.serve([asked, after])
    assert isinstance(outcomes[0].error, error)
    with pytest.raises(error, match=message):
        raise outcomes[0].error
    assert are_equal(outcomes[1].pictures, world.alone[after.request_id])


@pytest.mark.parametrize("seed", range(5))
def test_neither_order_nor_delays_in_store_and_lanes_change_a_bit(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)

    def delay(method: Callable[..., Any], most_s: float) -> Callable[..., Any]:
        def delayed(*arguments: Any) -> Any:
            time.sleep(rng.random() * most_s)
            return method(*arguments)

        return delayed

    monkeypatch.setattr(Lane, "_compute", delay(Lane._compute, 0.003))
    monkeypatch.setattr(AdapterStore, "fetch_lora", delay(AdapterStore.fetch_lora, 0.05))
    monkeypatch.setattr(AdapterStore, "fetch_controlnet", delay(AdapterStore.fetch_controlnet, 0.05))
    requests = [*GOOD, *rng.sample(BAD, 3)]
    rng.shuffle(requests)
    budget = rng.choice([{}, {"lora_cache_mb": 10.0, "controlnet_cache_mb": 10.0, "eviction": "lfu"}])
    world.check(requests, world.serve(requests, max_concurrent_loads=rng.choice([1, 4]), **budget))
