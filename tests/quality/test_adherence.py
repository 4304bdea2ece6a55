"""Control adherence must be high for a scene's own control image and low for another scene's."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.errors import ModelError
from swiftdiff.quality import control_adherence, edge_f1
from swiftdiff.scenes import CONTROL_KINDS, control_from_scene, render, sample_scene


@pytest.mark.parametrize("kind", CONTROL_KINDS)
def test_a_picture_follows_its_own_control_image_and_not_another_scenes(kind: str) -> None:
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng) for _ in range(24)]
    images = render(scenes)
    controls = [control_from_scene(kind, scene) for scene in scenes]
    own = [control_adherence(kind, image, control) for image, control in zip(images, controls, strict=True)]
    others = [
        control_adherence(kind, image, control)
        for image, control in zip(images, controls[1:] + controls[:1], strict=True)
    ]
    assert min(own) > 0.9
    assert np.mean(others) < 0.4


def test_edges_may_be_two_pixels_off_but_not_four() -> None:
    scene = sample_scene(np.random.default_rng(1), count=1)
    image = render([scene])[0]
    control = control_from_scene("edges", scene)
    assert edge_f1(np.roll(image, 2, 0), control) > 0.97
    assert edge_f1(np.roll(image, 4, 0), control) < 0.75


def test_no_edges_at_all_agree_only_with_no_edges() -> None:
    empty = np.zeros((64, 64, 3), np.uint8)
    lines = empty.copy()
    lines[30] = 255
    assert edge_f1(empty, empty) == 1
    assert edge_f1(empty, lines) == 0


def test_an_unknown_kind_of_control_image_is_named_with_what_there_is() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ModelError, match=r"'pose'.*edges, depth, layout"):
        control_adherence("pose", image, image)
