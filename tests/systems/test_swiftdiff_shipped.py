"""The engine's pictures are stock's on the family that ships and on SDXL's topology.

Within 1 of 255, for the reason that `test_swiftdiff` states.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import SWITCHES, engine, largest_difference, replay, request, stock

from swiftdiff.models.family import materialize_preset
from swiftdiff.models.presets import PRESETS
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse

TOLERANCE = 1


def asked_of(loras: tuple[str, str], **fields: int) -> list[ImageRequest]:
    nets = tuple(
        ControlNetUse(id=name, image=image)
        for name, image in (("edges", "control.png"), ("depth", "other-size.png"), ("layout", "control.png"))
    )
    uses = tuple(LoraUse(id=name, scale=scale) for name, scale in zip(loras, (1.0, 0.6), strict=True))
    return [
        request("0C0L", **fields),
        request("1C1L", controlnets=nets[:1], loras=uses[:1], **fields),
        request("3C2L", controlnets=nets, loras=uses, negative_prompt="blue", **fields),
    ]


def check(model: Path | str, requests: list[ImageRequest], controls: Path, switch: str) -> None:
    with stock(model) as system:
        expected = replay(system, requests, controls)
    with engine(model, **SWITCHES[switch]) as system:
        outcomes = replay(system, requests, controls)
    assert [outcome.error for outcome in (*expected, *outcomes)] == [None] * 2 * len(requests)
    found = [
        largest_difference(ours.pictures, stocks.pictures)
        for ours, stocks in zip(outcomes, expected, strict=True)
    ]
    assert max(found) <= TOLERANCE, found
    adapted = [largest_difference(expected[0].pictures, other.pictures) for other in expected[1:]]
    assert min(adapted) > 10 * TOLERANCE  # or the adapters would have had no part in it


@pytest.mark.parametrize("switch", ["none", "all"])
def test_the_shipped_familys_pictures_are_stocks(controls: Path, switch: str) -> None:
    check("shapes", asked_of(("gold", "sketch")), controls, switch)


def test_sdxls_topology_gives_stocks_pictures(controls: Path, tmp_path: Path) -> None:
    thin = materialize_preset("sdxl-thin", tmp_path / "thin", loras=2)
    loras = PRESETS["sdxl-thin"].loras
    check(thin, asked_of((loras[0], loras[1]), width=128, height=96), controls, "all")
