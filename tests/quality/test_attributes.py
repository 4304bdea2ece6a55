"""The judge must be right about pictures of known content, worn or not, and about one wrong attribute."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from swiftdiff.quality.attributes import Judgement, judge, read_picture, size_name
from swiftdiff.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, SceneObject, render, sample_scene
from swiftdiff.scenes.scene import POSITIONS

SCENES = 120  # 500 give the same; fewer keep the suite fast


def _scenes(number: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, held_out=index % 5 == 0) for index in range(number)]


def _plain(image: np.ndarray) -> np.ndarray:
    return image


def _blurred_and_noisy(image: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(int(image.sum()))
    picture = ndimage.gaussian_filter(image.astype(np.float32), (0.7, 0.7, 0))
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).round().astype(np.uint8)


def _compressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=70)
    return np.array(Image.open(file))


def _shares(judgements: list[Judgement]) -> dict[str, float]:
    items = [item for judged in judgements for item in judged.objects]
    shares = {
        name: np.mean([getattr(item, f"{name}_right") for item in items])
        for name in ("colour", "shape", "size")
    }
    for name in ("relation_right", "background_right", "count_right"):
        shares[name] = np.mean([getattr(judged, name) for judged in judgements])
    return {name: float(share) for name, share in shares.items()}


@pytest.mark.parametrize("wear", [_plain, _blurred_and_noisy, _compressed])
def test_the_judge_finds_nothing_wrong_with_true_pictures(wear: Callable[[np.ndarray], np.ndarray]) -> None:
    scenes = _scenes(SCENES, seed=11)
    shares = _shares([judge(wear(image), scene) for image, scene in zip(render(scenes), scenes, strict=True)])
    assert min(shares.values()) >= 0.99, shares


def _wrong_names(judged: Judgement) -> set[str]:
    wrong = {name for name in ("relation", "background", "count") if not getattr(judged, f"{name}_right")}
    for index, item in enumerate(judged.objects):
        wrong |= {
            f"{name} {index}" for name in ("colour", "shape", "size") if not getattr(item, f"{name}_right")
        }
    return wrong


def _other(rng: np.random.Generator, options: tuple[str, ...], name: str) -> str:
    return str(rng.choice([option for option in options if option != name]))


def _with_object(scene: Scene, index: int, item: SceneObject) -> Scene:
    return replace(scene, objects=(*scene.objects[:index], item, *scene.objects[index + 1 :]))


def _changed(scene: Scene, what: str, rng: np.random.Generator) -> tuple[Scene, str]:
    """A scene with one attribute changed, and the name of what a judge must then find wrong."""
    index = int(rng.integers(len(scene.objects)))
    item = scene.objects[index]
    if what == "background":
        return replace(scene, background=_other(rng, tuple(BACKGROUNDS), scene.background)), "background"
    if what == "relation":
        return _turned(scene), "relation"
    if what == "size":
        size = "medium" if item.size != "medium" else "small"
        changed = replace(item, size=size, radius=sum(SIZES[size]) / 2)
    else:
        options = tuple(COLOURS) if what == "colour" else SHAPES
        changed = replace(item, **{what: _other(rng, options, getattr(item, what))})
    return _with_object(scene, index, changed), f"{what} {index}"


def _turned(scene: Scene) -> Scene:
    """The same objects standing in another relation: places on the other axis, or another third place."""
    if len(scene.objects) == 1:
        (item,) = scene.objects
        name = next(name for name in POSITIONS if name != scene.relation)
        x, y = POSITIONS[name]
        return replace(scene, objects=(replace(item, x=x, y=y),))
    if len(scene.objects) == 2:
        return replace(scene, objects=tuple(replace(item, x=item.y, y=item.x) for item in scene.objects))
    return replace(scene, objects=tuple(replace(item, y=1 - item.y) for item in scene.objects))


@pytest.mark.parametrize("what", ["colour", "shape", "size", "relation", "background"])
def test_the_judge_finds_exactly_the_one_attribute_that_is_wrong(what: str) -> None:
    rng = np.random.default_rng(12)
    scenes = _scenes(50, seed=13)
    changed = [_changed(scene, what, rng) for scene in scenes]
    images = render([scene for scene, _ in changed])
    exact = [
        _wrong_names(judge(_blurred_and_noisy(image), scene)) == {name}
        for image, scene, (_, name) in zip(images, scenes, changed, strict=True)
    ]
    assert np.mean(exact) >= 0.98


def _pair(first: str, second: str, size: str = "medium") -> Scene:
    (colour, shape), (other_colour, other_shape) = first.split(), second.split()
    radius = sum(SIZES[size]) / 2
    objects = (
        SceneObject(shape, colour, size, 0.27, 0.5, radius),
        SceneObject(other_shape, other_colour, size, 0.73, 0.5, radius),
    )
    return Scene(objects, "sand", "left of")


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        (("red circle", "blue square"), ("blue circle", "red square")),
        (("red circle", "blue circle"), ("blue circle", "red circle")),
    ],
)
def test_colours_swapped_between_two_objects_are_both_wrong(
    asked: tuple[str, str], drawn: tuple[str, str]
) -> None:
    image = render([_pair(*drawn)])[0]
    assert _wrong_names(judge(image, _pair(*asked))) == {"colour 0", "colour 1"}


def test_objects_that_changed_places_are_a_wrong_relation_only() -> None:
    image = render([_pair("blue square", "red circle")])[0]
    assert _wrong_names(judge(image, _pair("red circle", "blue square"))) == {"relation"}


def test_a_missing_object_counts_as_wrong_in_everything() -> None:
    asked = _pair("red circle", "blue square")
    image = render([replace(asked, objects=asked.objects[:1])])[0]
    assert _wrong_names(judge(image, asked)) == {"colour 1", "shape 1", "size 1", "relation", "count"}


def test_an_extra_object_is_a_wrong_count() -> None:
    asked = _pair("red circle", "blue square")
    extra = SceneObject("star", "green", "small", 0.5, 0.85, 0.09)
    image = render([replace(asked, objects=(*asked.objects, extra))])[0]
    judged = judge(image, asked)
    assert _wrong_names(judged) == {"count"}
    assert not judged.all_right


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_a_picture_of_nothing_shows_no_objects(fill: int) -> None:
    image = np.full((128, 128, 3), fill, np.uint8)
    judged = judge(image, _pair("red circle", "blue square"))
    assert not judged.relation_right
    assert not any(item.colour_right or item.shape_right for item in judged.objects)


def test_noise_is_judged_without_an_error_and_wrong() -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert not judge(image, _pair("red circle", "blue square")).all_right


def test_pictures_of_another_size_are_read_alike() -> None:
    scene = _pair("red star", "blue ring")
    found = [read_picture(render([scene], side)[0]) for side in (96, 128, 256)]
    assert {
        tuple(sorted((item.colour, item.shape, item.size) for item in reading.objects)) for reading in found
    } == {(("blue", "ring", "medium"), ("red", "star", "medium"))}


def test_a_radius_between_two_size_classes_takes_the_nearer_name() -> None:
    assert [size_name(radius) for radius in (0.05, 0.07, 0.115, 0.12, 0.175, 0.18, 0.26, 0.3)] == [
        None, "small", "small", "medium", "medium", "large", "large", None,
    ]  # fmt: skip


def test_blobs_that_are_none_of_the_named_objects_prove_no_relation() -> None:
    image = render([_pair("green star", "pink cross")])[0]
    judged = judge(image, _pair("red circle", "blue square"))
    assert not judged.relation_right
    assert judged.count_right
