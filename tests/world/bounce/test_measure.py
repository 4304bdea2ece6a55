"""Balls are found in pictures: which, how many pieces, and where, also where they touch."""

from __future__ import annotations

import numpy as np

from swiftdiff.world.bounce.autoencoder import still_pictures
from swiftdiff.world.bounce.evaluation import to_pictures
from swiftdiff.world.bounce.measure import MIN_PIXELS, locate, look_at
from swiftdiff.world.bounce.physics import Course, simulate
from swiftdiff.world.bounce.prompts import parse_scene
from swiftdiff.world.bounce.render import draw
from swiftdiff.world.bounce.scene import BACKGROUND, COLOUR_NAMES, COLOURS, NONE, sample_scenes


def _first_frame(text: str) -> np.ndarray:
    return to_pictures(simulate(parse_scene(text), np.full((1, 1), NONE)))[0, :1]


def test_a_picture_shows_the_balls_in_their_colours_and_the_ground_elsewhere() -> None:
    picture = _first_frame("green ball at 10,20 moving 1,0")[0]
    assert tuple(picture[19, 9]) == COLOURS["green"]  # rows are y
    assert tuple(picture[9, 19]) == BACKGROUND
    covered = np.abs(picture.astype(float) - BACKGROUND).sum(-1)
    assert abs(covered.sum() / covered[19, 9] - np.pi * 3.5**2) < 1.5  # anti-aliased: the area is right


def test_lone_balls_are_located_within_a_tenth_of_a_pixel() -> None:
    scenes = sample_scenes(np.random.default_rng(0), 100)
    present = np.zeros_like(scenes.present)
    present[:, 0] = True
    course = Course(scenes.position[:, None], scenes.colour[:, None], present, scenes)
    sightings = look_at(to_pictures(course)[:, 0])
    centres = locate(sightings, np.arange(100), scenes.colour[:, 0])
    assert np.abs(centres - scenes.position[:, 0]).max() < 0.1
    assert np.array_equal(sightings.pixels.argmax(1), scenes.colour[:, 0])
    assert (sightings.pieces.sum(1) == 1).all()


def test_balls_that_touch_are_each_one_piece_and_located_within_a_quarter_of_a_pixel() -> None:
    pictures = _first_frame("red ball at 13,15 moving 1,0; blue ball at 19,18.7 moving 0,1")
    names = np.array([COLOUR_NAMES.index("red"), COLOUR_NAMES.index("blue")])
    sightings = look_at(pictures)
    assert sightings.pieces.sum() == sightings.pieces[0, names].sum() == 2
    assert np.abs(locate(sightings, np.zeros(2, np.int64), names) - [[13, 15], [19, 18.7]]).max() < 0.25


def test_an_empty_picture_and_grey_noise_show_no_ball() -> None:
    empty = np.full((1, 32, 32, 3), BACKGROUND, np.uint8)
    grey = np.full((1, 32, 32, 3), 170, np.uint8)
    for picture in (empty, grey):
        assert look_at(picture).pixels.max() < MIN_PIXELS


def test_drawn_values_are_within_the_range_of_pixels() -> None:
    pictures = draw(still_pictures(np.random.default_rng(1), 20))
    assert pictures.shape == (20, 3, 1, 32, 32)
    assert float(pictures.min()) >= -1
    assert float(pictures.max()) <= 1
