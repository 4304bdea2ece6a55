"""The engine's pictures are stock's, whatever is switched on.

Tolerance: 1 of 255. The engine adds the same products in another order (guidance's halves in batches of their
own, LoRAs as one sum on pristine weights); a pixel's value that lies between two integers may then be rounded
to the other one. No larger difference is allowed.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from serving import (
    LORAS,
    SWITCHES,
    Picture,
    SwiftdiffSystem,
    engine,
    largest_difference,
    replay,
    request,
    stock,
    with_adapters,
)

from swiftdiff.config import ServingConfig
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse

TOLERANCE = 1

MATRIX = {
    f"{controlnets}C/{loras}L": with_adapters(controlnets, LORAS[:loras], f"{controlnets}C{loras}L")
    for controlnets in range(4)
    for loras in range(3)
}
WINDOWS = (
    ControlNetUse(id="edges", image="control.png", scale=0.7, end=0.4),
    ControlNetUse(id="depth", image="other-size.png", start=0.3, end=0.9),
    ControlNetUse(id="layout", image="control.png", scale=0.0),
)
KINDS = {
    "two adapters of each kind": with_adapters(2, LORAS, "plain"),
    "not square": with_adapters(1, LORAS[:1], "wide", width=96, height=48),
    "four pictures": with_adapters(1, LORAS[:1], "four", num_images=4),
    "no guidance": with_adapters(1, LORAS[:1], "unguided", guidance_scale=1.0),
    "negative prompt": with_adapters(0, LORAS[:1], "negative", negative_prompt="a dog"),
    "empty negative prompt": request("empty", negative_prompt=""),
    "windows": request("windows", controlnets=WINDOWS, num_inference_steps=5),
    "negative scale": request("scale", loras=(LoraUse(id="kohya", scale=-0.8),)),
}


class Stock:
    """Stock's pictures, made once."""

    def __init__(self, family: Path, images: Path) -> None:
        self._family = family
        self._images = images
        self._known: dict[tuple[str, str], tuple[Picture, ...]] = {}

    def pictures(self, requests: list[ImageRequest], scheduler: str) -> list[tuple[Picture, ...]]:
        missing = [one for one in requests if (scheduler, one.request_id) not in self._known]
        if missing:
            with stock(self._family, scheduler) as system:
                for one, outcome in zip(missing, replay(system, missing, self._images), strict=True):
                    assert outcome.error is None, outcome.error
                    self._known[scheduler, one.request_id] = outcome.pictures
        return [self._known[scheduler, one.request_id] for one in requests]


@pytest.fixture(scope="module")
def stocks(tiny_family: Path, controls: Path) -> Stock:
    return Stock(tiny_family, controls)


def differences(
    stocks: Stock, family: Path, controls: Path, asked: dict[str, ImageRequest], scheduler: str, **on: Any
) -> dict[str, int]:
    requests = list(asked.values())
    expected = stocks.pictures(requests, scheduler)
    with engine(family, scheduler, **on) as system:
        outcomes = replay(system, requests, controls)
    assert [outcome.error for outcome in outcomes] == [None] * len(requests)
    return {
        name: largest_difference(outcome.pictures, pictures)
        for name, outcome, pictures in zip(asked, outcomes, expected, strict=True)
    }


@pytest.mark.parametrize("switch", SWITCHES)
def test_up_to_three_controlnets_and_two_loras_give_stocks_pictures(
    stocks: Stock, tiny_family: Path, controls: Path, switch: str
) -> None:
    found = differences(stocks, tiny_family, controls, MATRIX, "euler", **SWITCHES[switch])
    assert max(found.values()) <= TOLERANCE, found


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "ddim"])
@pytest.mark.parametrize("switch", ["none", "all"])
def test_every_kind_of_request_gives_stocks_pictures(
    stocks: Stock, tiny_family: Path, controls: Path, switch: str, scheduler: str
) -> None:
    found = differences(stocks, tiny_family, controls, KINDS, scheduler, **SWITCHES[switch])
    assert max(found.values()) <= TOLERANCE, found


def test_adapters_and_schedulers_make_the_pictures_that_are_compared_different(stocks: Stock) -> None:
    pictures = stocks.pictures(list(MATRIX.values()), "euler")
    pictures += [stocks.pictures([KINDS["not square"]], name)[0] for name in ("dpmpp_2m", "ddim")]
    for some, others in combinations(pictures, 2):
        if some[0].shape == others[0].shape:
            assert largest_difference(some, others) > 10 * TOLERANCE


def test_as_it_is_configured_by_default_it_gives_stocks_pictures(
    stocks: Stock, tiny_family: Path, controls: Path
) -> None:
    """Here lanes have the machine's threads to share, and a request without guidance has all of them."""
    system = SwiftdiffSystem(
        ServingConfig(name="default", engine="swiftdiff", model=str(tiny_family), threads=2)
    )
    try:
        system.warm_up()
        outcomes = replay(system, list(KINDS.values()), controls)
    finally:
        system.close()
    expected = stocks.pictures(list(KINDS.values()), "euler")
    found = [largest_difference(a.pictures, b) for a, b in zip(outcomes, expected, strict=True)]
    assert max(found) <= TOLERANCE, found
