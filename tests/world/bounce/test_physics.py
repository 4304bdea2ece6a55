"""Balls keep their speed, turn back at walls and at one another, and do what actions say."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.world.bounce.physics import simulate
from swiftdiff.world.bounce.prompts import parse_scene
from swiftdiff.world.bounce.scene import (
    ACTION_NAMES,
    COLOUR_NAMES,
    NONE,
    RADIUS,
    SIDE,
    nearest,
    sample_scenes,
)


def _actions(*names: str) -> np.ndarray:
    return np.array([[ACTION_NAMES.index(name) for name in names]])


def test_a_ball_starts_where_the_scene_says_and_moves_on_by_its_velocity() -> None:
    course = simulate(parse_scene("red ball at 8,20 moving 1.2,-0.7"), _actions("none", "none"))
    expected = np.array([8, 20]) + np.arange(6)[:, None] * np.array([1.2, -0.7])
    assert course.position[0, :, 0] == pytest.approx(expected)


def test_a_wall_turns_a_ball_back_by_as_much_as_it_would_have_gone_through() -> None:
    course = simulate(parse_scene("red ball at 28,16 moving 1,0"), _actions("none"))
    assert course.position[0, :, 0, 0] == pytest.approx([28, 28, 27])  # the wall stops its centre at 28.5
    assert course.end.velocity[0, 0] == pytest.approx([-1, 0])


def test_a_ball_that_runs_into_another_turns_back_and_one_that_is_run_into_from_behind_goes_on() -> None:
    scene = parse_scene("red ball at 5,16 moving 1.5,0; blue ball at 14,16 moving 0.6,0")
    course = simulate(scene, _actions("none", "none"))
    apart = course.position[0, :, 1, 0] - course.position[0, :, 0, 0]
    assert apart.min() == pytest.approx(7, abs=0.9)
    assert course.end.velocity[0, :2] == pytest.approx(np.array([[-1.5, 0], [0.6, 0]]))


def test_what_a_ball_has_across_the_line_of_centres_goes_on() -> None:
    scene = parse_scene("red ball at 5,16 moving 1,0.5; blue ball at 15,16 moving -1,0.5")
    course = simulate(scene, _actions("none"))
    assert course.end.velocity[0, :2] == pytest.approx(np.array([[-1, 0.5], [1, 0.5]]))


def test_balls_never_pass_into_one_another_whatever_is_done() -> None:
    rng = np.random.default_rng(4)
    scenes = sample_scenes(rng, 200)
    course = simulate(scenes, rng.integers(len(ACTION_NAMES), size=(200, 40)))
    least = np.stack([nearest(course.position[:, frame], scenes.present) for frame in range(120)])
    assert least[0].min() >= 8  # sampled with a pixel between them
    assert least.min() > 7 - 0.8  # what two of the fastest go towards each other in a part of a frame
    assert (least < 7.5).any()


def test_balls_stay_inside_and_keep_their_speed_whatever_is_done() -> None:
    rng = np.random.default_rng(0)
    scenes = sample_scenes(rng, 200)
    course = simulate(scenes, rng.integers(len(ACTION_NAMES), size=(200, 40)))
    assert course.position.min() >= RADIUS - 1e-9
    assert course.position.max() <= SIDE - RADIUS + 1e-9
    speed, at_end = (np.linalg.norm(state.velocity, axis=-1) for state in (scenes, course.end))
    assert at_end == pytest.approx(speed)


@pytest.mark.parametrize(
    ("action", "direction"),
    [("push left", (-1, 0)), ("push right", (1, 0)), ("push up", (0, -1)), ("push down", (0, 1))],
)
def test_a_push_turns_a_ball_from_its_blocks_first_frame_on(action: str, direction: tuple[int, int]) -> None:
    scene = parse_scene("red ball at 16,16 moving 0.6,0.8")
    course = simulate(scene, _actions("none", action))
    before = course.position[0, 2, 0] - course.position[0, 1, 0]
    after = course.position[0, 3, 0] - course.position[0, 2, 0]
    wanted = np.array([0.6, 0.8]) + 2 * np.array(direction)
    assert before == pytest.approx([0.6, 0.8])
    assert after == pytest.approx(wanted / np.linalg.norm(wanted))


def test_a_change_of_colour_gives_every_ball_the_next_of_the_palette() -> None:
    scene = parse_scene("red ball at 8,20 moving 1,0; magenta ball at 20,9 moving 0,1")
    course = simulate(scene, _actions("none", "colour"))
    names = [[COLOUR_NAMES[colour] for colour in frame[:2]] for frame in course.colour[0]]
    assert names == [["red", "magenta"]] * 3 + [["yellow", "red"]] * 3


def test_a_course_that_goes_on_equals_one_that_was_never_cut() -> None:
    rng = np.random.default_rng(1)
    scenes, actions = sample_scenes(rng, 20), rng.integers(len(ACTION_NAMES), size=(20, 6))
    whole = simulate(scenes, actions)
    first = simulate(scenes, actions[:, :2])
    rest = simulate(first.end, actions[:, 2:], is_start=False)
    assert np.array_equal(np.concatenate([first.position, rest.position], 1), whole.position)
    assert np.array_equal(np.concatenate([first.colour, rest.colour], 1), whole.colour)


def test_sampled_scenes_have_one_or_two_balls_of_different_colours() -> None:
    scenes = sample_scenes(np.random.default_rng(2), 300)
    assert set(scenes.present.sum(1)) == {1, 2}
    assert all(len(set(colours)) == 2 for colours in scenes.colour)
    course = simulate(scenes, np.full((300, 1), NONE))
    assert np.array_equal(course.position[:, 0], scenes.position)
