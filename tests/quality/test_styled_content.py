"""What a styled picture shows is read off its rendering, and a wrong shape, colour or place is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from swiftdiff.quality.styled_content import COLOURED_STYLES, judge_styled
from swiftdiff.scenes import Scene, render_style, sample_scene


def _blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), (0.7, 0.7, 0)).astype(np.uint8))


def _scenes(number: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, count=2) for _ in range(number)]


@pytest.mark.parametrize("style", ["neon", "stripes", "gold", "night"])
def test_a_style_hides_neither_shape_nor_size_nor_place(style: str) -> None:
    scenes = _scenes(3, seed=4)
    judged = [
        item
        for image, scene in zip(render_style(style, scenes), scenes, strict=True)
        for item in judge_styled(_blurred(image), scene, style)
    ]
    assert all(item.is_there and item.shape_right and item.size_right for item in judged)
    assert {item.colour_right for item in judged} == {True if style in COLOURED_STYLES else None}


def test_a_wrong_shape_and_a_wrong_colour_are_noticed_in_neon() -> None:
    (scene,) = _scenes(1, seed=5)
    first, second = scene.objects
    asked = replace(
        scene,
        objects=(
            replace(first, shape="cross" if first.shape != "cross" else "circle"),
            replace(second, colour="blue" if second.colour != "blue" else "yellow"),
        ),
    )
    judged = judge_styled(render_style("neon", [scene])[0], asked, "neon")
    assert [item.shape_right for item in judged] == [False, True]
    assert [item.colour_right for item in judged] == [True, False]


def test_an_object_that_is_not_there_is_missed() -> None:
    (scene,) = _scenes(1, seed=6)
    image = render_style("gold", [replace(scene, objects=scene.objects[:1])])[0]
    assert [item.is_there for item in judge_styled(image, scene, "gold")] == [True, False]
