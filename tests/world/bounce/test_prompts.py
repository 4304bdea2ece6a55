"""Prompts are parsed or refused with a reason; the same text and the same scene give the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftdiff.errors import RequestError
from swiftdiff.world.bounce.prompts import BouncePrompts, scene_features
from swiftdiff.world.bounce.scene import ACTION_NAMES, describe_scene, sample_scenes

PROMPTS = BouncePrompts()


def test_a_scenes_text_has_the_features_of_the_scene() -> None:
    scenes = sample_scenes(np.random.default_rng(0), 50)
    expected = torch.from_numpy(scene_features(scenes))
    for world in range(50):
        encoded = PROMPTS.encode(describe_scene(scenes, world))
        assert torch.equal(encoded[0], expected[world]), describe_scene(scenes, world)


def test_every_action_has_features_of_its_own_and_none_is_the_null_prompt() -> None:
    features = [PROMPTS.encode(name) for name in ACTION_NAMES]
    assert all(item.shape == (1, 3, 32) for item in features)
    assert len({tuple(item.flatten().tolist()) for item in (*features, PROMPTS.null())}) == 7


def test_later_blocks_are_told_which_balls_there_are_and_not_where() -> None:
    scene = "red ball at 8,20 moving 1.2,-0.7; magenta ball at 20,9 moving -0.5,0.9"
    text = PROMPTS.follow(scene, "push left")
    assert text == "push left; red ball; magenta ball"
    text = PROMPTS.follow(text, "Colour")
    assert text == "colour; yellow ball; red ball"
    text = PROMPTS.follow(text, "none")
    assert text == "none; yellow ball; red ball"
    moved = scene.replace("8,20", "9,21")
    assert PROMPTS.follow(moved, "none") == PROMPTS.follow(scene, "none")
    features = PROMPTS.encode(text)
    assert torch.equal(features[0, 0], PROMPTS.encode("none")[0, 0])
    assert torch.equal(features[0, 1:, 2:8].argmax(-1), torch.tensor([1, 0]))
    assert features[0, 1:, 0].tolist() == [1, 1]
    assert not features[0, 1:, 8:31].any()


def test_another_scene_is_asked_for_as_it_is() -> None:
    scene = "red ball at 8,20 moving 1.2,-0.7"
    assert PROMPTS.follow("none; blue ball", scene) == scene


def test_spaces_and_capitals_do_not_matter() -> None:
    assert torch.equal(PROMPTS.encode("  Push   LEFT "), PROMPTS.encode("push left"))
    spaced = PROMPTS.encode("Red ball at 8 , 20 moving 1.2 , -0.7 ;")
    assert torch.equal(spaced, PROMPTS.encode("red ball at 8,20 moving 1.2,-0.7"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("push lef", "did you mean 'push left'"),
        ("", "unknown action ''"),
        ("red ball", "ball 1 is 'red ball'"),
        ("red ball at 8,20 moving 1.2", "ball 1"),
        ("red ball at 8,2O moving 1.2,0", "ball 1"),
        ("pink ball at 8,20 moving 1,0", "unknown colour 'pink'"),
        ("red ball at 1,20 moving 1,0", "red ball at is '1,20', but must be 3.5 to 28.5 each"),
        ("red ball at 8,20 moving 9,0", "speed is 9.0, but must be 0.6 to 1.6"),
        ("red ball at 8,20 moving 0,0", "speed is 0.0"),
        ("red ball at 8,20 moving 1,0; red ball at 20,9 moving 1,0", "two balls of one colour"),
        ("red ball at 8,20 moving 1,0; blue ball at 12,20 moving 1,0", "centres 4 pixels apart"),
        (";".join(["red ball at 8,20 moving 1,0"] * 4), "balls is 4, but must be 1 to 2"),
        ("red ball at nan,20 moving 1,0", "ball 1"),
        ("push left; pink ball", "unknown colour 'pink'"),
        ("push left; red", "ball 1 is 'red', but must be like `red ball`"),
        ("none; red ball; blue ball; cyan ball; green ball", "balls is 4, but must be at most 2"),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason.replace("(", r"\(")):
        PROMPTS.encode(text)
