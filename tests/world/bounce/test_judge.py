"""The judge passes true clips and fails each kind of wrong one."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.world.bounce.evaluation import to_pictures
from swiftdiff.world.bounce.judge import MISSING_ERROR, follow, is_easy_to_read, keeps_balls, obeys
from swiftdiff.world.bounce.physics import Course, simulate
from swiftdiff.world.bounce.prompts import parse_scene
from swiftdiff.world.bounce.scene import ACTION_NAMES, BACKGROUND, COLOUR, NONE, Scenes, sample_scenes

BLOCK = 3


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return sample_scenes(np.random.default_rng(0), 40)


@pytest.fixture(scope="module")
def course(scenes: Scenes) -> Course:
    return simulate(scenes, np.full((40, 8), NONE))


@pytest.fixture(scope="module")
def pictures(course: Course) -> np.ndarray:
    return to_pictures(course)


def test_true_clips_are_followed_exactly_and_keep_their_balls(
    pictures: np.ndarray, course: Course, scenes: Scenes
) -> None:
    followed = follow(pictures, course)
    assert not followed.is_missing.any()
    assert np.mean(followed.errors) < 0.1
    assert keeps_balls(pictures, scenes).all()


def test_an_error_is_the_distance_in_pixels(course: Course, pictures: np.ndarray) -> None:
    shifted = np.roll(pictures[:, :3], 2, axis=3)
    inside = course.position[:, :3, :, 0].max((1, 2)) < 26  # what is rolled in from the other side is ground
    kept = Course(course.position[inside], course.colour[inside], course.present[inside], course.end)
    assert inside.sum() > 2
    assert np.median(follow(shifted[inside], kept).errors) == pytest.approx(2, abs=0.1)


def test_a_ball_that_vanishes_counts_as_missing_and_as_not_kept(
    pictures: np.ndarray, course: Course, scenes: Scenes
) -> None:
    gone = pictures.copy()
    gone[:, 12:] = BACKGROUND
    followed = follow(gone, course)
    assert followed.is_missing.any()
    assert followed.clips_with_missing <= len(course.position)
    assert followed.errors.max() == MISSING_ERROR
    assert not keeps_balls(gone, scenes).any()


def test_a_ball_of_another_colour_is_not_kept(pictures: np.ndarray, scenes: Scenes) -> None:
    changed = to_pictures(simulate(scenes, np.array([[NONE] * 4 + [COLOUR] + [NONE] * 3] * 40)))
    assert not keeps_balls(changed, scenes).any()


def test_a_second_ball_of_one_colour_is_not_kept() -> None:
    one = parse_scene("red ball at 8,8 moving 1,0")
    doubled = to_pictures(simulate(one, np.full((1, 4), NONE)))
    doubled = np.maximum(doubled, np.roll(doubled, 16, axis=2))
    assert not keeps_balls(doubled, one)[0]


def test_true_clips_obey_and_clips_of_another_action_do_not() -> None:
    everything = sample_scenes(np.random.default_rng(3), 400)
    for asked in range(len(ACTION_NAMES)):
        done = np.full((400, BLOCK + 2), NONE)
        done[:, BLOCK] = asked
        easy = np.flatnonzero(is_easy_to_read(simulate(everything, done), BLOCK))[:20]
        chosen = everything.take(easy)
        shown = to_pictures(simulate(chosen, done[easy]))
        assert len(easy) == 20
        assert obeys(shown, chosen, BLOCK, np.full(20, asked)).mean() > 0.9, ACTION_NAMES[asked]
        other = (asked + 2) % len(ACTION_NAMES)
        assert obeys(shown, chosen, BLOCK, np.full(20, other)).mean() < 0.3, ACTION_NAMES[asked]
