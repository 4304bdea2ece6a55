"""Faults of a model's own past are drawn: in some clips, for some blocks, over what is true."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swiftdiff.world.bounce.blemishes import draw_blemished
from swiftdiff.world.bounce.measure import MIN_PIXELS, look_at
from swiftdiff.world.bounce.physics import Course, simulate
from swiftdiff.world.bounce.render import draw
from swiftdiff.world.bounce.scene import BACKGROUND, COLOURS, FRAMES_PER_BLOCK, NONE, sample_scenes

CLIPS, BLOCKS = 200, 6


@pytest.fixture(scope="module")
def course() -> Course:
    return simulate(sample_scenes(np.random.default_rng(0), CLIPS), np.full((CLIPS, BLOCKS), NONE))


@pytest.fixture(scope="module")
def changed(course: Course) -> np.ndarray:
    """How much each block differs from the truth, [clips, blocks]."""
    difference = draw_blemished(np.random.default_rng(1), course, torch.device("cpu")) - draw(course)
    by_block = difference.abs().amax((1, 3, 4)).view(CLIPS, BLOCKS, FRAMES_PER_BLOCK)
    return by_block.amax(2).numpy()


def test_about_half_of_the_clips_have_a_fault_of_one_to_three_blocks_on_end(changed: np.ndarray) -> None:
    is_faulty = changed > 0.02
    assert 0.35 < is_faulty.any(1).mean() < 0.65
    lengths = is_faulty.sum(1)
    assert set(lengths) == {0, 1, 2, 3}
    turns = np.abs(np.diff(np.pad(is_faulty, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1)
    assert turns.max() == 2  # one run
    assert is_faulty.any(0).all()  # of whichever blocks


def test_balls_fade_but_are_never_gone_and_others_show_that_are_not_there(course: Course) -> None:
    pictures = draw_blemished(np.random.default_rng(1), course, torch.device("cpu"))
    scaled = (pictures / 2 + 0.5).mul(255).round().byte().permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()
    sightings = look_at(scaled)
    shown = sightings.pixels.reshape(CLIPS, -1, len(COLOURS)) >= MIN_PIXELS
    true = np.zeros_like(shown)
    clip, frame, ball = np.nonzero(np.broadcast_to(course.present[:, None], course.colour.shape))
    true[clip, frame, course.colour[clip, frame, ball]] = True
    assert (shown & ~true).any()
    assert (~shown & true).any()  # under half of its opacity
    column, row = course.position[clip, frame, ball].astype(int).T
    at_centres = scaled.reshape(CLIPS, -1, 32, 32, 3)[clip, frame, row, column]
    assert np.abs(at_centres.astype(float) - BACKGROUND).max(-1).min() > 30


def test_the_same_numbers_make_the_same_faults(course: Course) -> None:
    one, again = (draw_blemished(np.random.default_rng(2), course, torch.device("cpu")) for _ in range(2))
    assert torch.equal(one, again)
