"""The synthetic world: what is sampled, said and drawn agree with each other."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.scenes import (
    COLOURS,
    CONTROL_KINDS,
    HELD_OUT_PAIRS,
    STYLES,
    caption,
    control_from_image,
    control_from_scene,
    parse_caption,
    render,
    render_style,
    sample_scene,
)
from swiftdiff.scenes.scene import Scene, SceneObject, is_held_out

RNG_SEED = 20


def scenes(number: int, count: int | None = None) -> list[Scene]:
    rng = np.random.default_rng(RNG_SEED)
    return [sample_scene(rng, count=count) for _ in range(number)]


def test_a_canonical_caption_reads_back_as_the_same_names() -> None:
    for scene in scenes(300):
        read = parse_caption(caption(scene))
        assert read is not None
        assert [(o.shape, o.colour, o.size) for o in read.objects] == [
            (o.shape, o.colour, o.size) for o in scene.objects
        ]
        assert (read.relation, read.third, read.background) == (scene.relation, scene.third, scene.background)


def test_a_caption_reads_as_the_issue_words_it() -> None:
    scene = Scene(
        (
            SceneObject("circle", "red", "large", 0.5, 0.3, 0.21),
            SceneObject("square", "blue", "small", 0.5, 0.7, 0.09),
        ),
        "sand",
        "above",
    )
    assert caption(scene) == "a large red circle above a small blue square on a sand background"


@pytest.mark.parametrize(
    "text", ["", "a dog", "a large red circle", "a large red circle on a tartan background"]
)
def test_other_text_is_not_a_caption(text: str) -> None:
    assert parse_caption(text) is None


def test_training_scenes_never_hold_a_held_out_pair_and_held_out_scenes_always_do() -> None:
    assert not any(is_held_out(scene) for scene in scenes(2000))
    rng = np.random.default_rng(RNG_SEED)
    drawn = [sample_scene(rng, held_out=True) for _ in range(300)]
    assert all(is_held_out(scene) for scene in drawn)
    assert {(s.objects[0].colour, s.objects[0].shape) for s in drawn} == HELD_OUT_PAIRS


def test_objects_stay_in_the_picture_apart_from_each_other_and_as_related() -> None:
    for scene in scenes(2000):
        for item in scene.objects:
            assert min(item.x, item.y) - item.radius > -0.02
            assert max(item.x, item.y) + item.radius < 1.02
        for i, a in enumerate(scene.objects):
            for b in scene.objects[:i]:
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius
        if len(scene.objects) == 2:
            a, b = scene.objects
            assert {
                "left of": a.x < b.x,
                "right of": a.x > b.x,
                "above": a.y < b.y,
                "below": a.y > b.y,
            }[scene.relation]
        if len(scene.objects) == 3:
            pair = [item.y for item in scene.objects[:2]]
            lone = scene.objects[2].y
            assert lone > max(pair) if scene.third == "below" else lone < min(pair)


def test_an_object_is_drawn_in_its_colour_at_its_place() -> None:
    for scene, picture in zip(drawn := scenes(50, count=1), render(drawn), strict=True):
        item = scene.objects[0]
        if item.shape == "ring":
            continue
        pixel = picture[round(item.y * 128), round(item.x * 128)].astype(float)
        nearest = min(COLOURS, key=lambda name: float(np.abs(pixel - COLOURS[name]).sum()))
        assert nearest == item.colour


def test_a_scene_renders_alike_at_two_sizes() -> None:
    drawn = scenes(8)
    large = render(drawn, 128).reshape(8, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(large - render(drawn, 64)).mean() < 4


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_the_whole_batch_and_is_reproducible(style: str) -> None:
    drawn = scenes(4)
    first, again = render_style(style, drawn), render_style(style, drawn)
    assert first.shape == (4, 128, 128, 3)
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - render(drawn)).mean(axis=(1, 2, 3)).min() > 4


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_a_control_image_from_the_picture_agrees_with_the_one_from_the_scene(kind: str) -> None:
    drawn = scenes(12)
    for scene, picture in zip(drawn, render(drawn), strict=True):
        known = control_from_scene(kind, scene, 128)
        guessed = control_from_image(kind, picture)
        assert known.shape == guessed.shape == (128, 128, 3)
        assert known.dtype == guessed.dtype == np.uint8
        assert (np.abs(known.astype(int) - guessed).max(2) > 60).mean() < 0.04


def test_edges_outline_an_object_and_ignore_its_shadow() -> None:
    scene = Scene((SceneObject("square", "green", "medium", 0.5, 0.5, 0.15),), "slate", "in the middle")
    rows, columns = np.nonzero(control_from_scene("edges", scene, 128)[..., 0])
    half = 0.82 * 0.15 * 128
    assert np.abs(np.maximum(np.abs(rows - 63.5), np.abs(columns - 63.5)) - half).max() < 3
