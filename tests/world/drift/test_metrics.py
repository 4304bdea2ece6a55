"""Proxies and physics tell a good clip from one that blurs, freezes, jerks, recolours or slows down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from swiftdiff.world.bounce.physics import simulate
from swiftdiff.world.bounce.render import draw
from swiftdiff.world.bounce.scene import NONE, Scenes
from swiftdiff.world.drift.physics import balls, flight_residual, speed
from swiftdiff.world.drift.proxies import PROXIES, background, clarity, dynamic, motion, subject

Chunk = NDArray[np.float32]


def clip(speed: float = 1.0, num_blocks: int = 4) -> Chunk:
    """Two balls that fly apart in the open, float32 [12, 32, 32, 3] from 0 to 1."""
    scenes = Scenes(
        np.array([[[10.0, 9.0], [10.0, 22.0], [16.0, 16.0]]]),
        np.array([[[speed, 0.0], [speed * 0.6, speed * 0.1], [0.0, 0.0]]]),
        np.array([[0, 4, 2]]),
        np.array([[True, True, False]]),
    )
    course = simulate(scenes, np.full((1, num_blocks), NONE))
    pictures: Chunk = (draw(course)[0].permute(1, 2, 3, 0).numpy() + 1) / 2
    return pictures


@pytest.fixture(scope="module")
def good() -> Chunk:
    return clip()


def test_blur_lowers_clarity(good: Chunk) -> None:
    blurred = ndimage.gaussian_filter(good, (0, 1.5, 1.5, 0))
    assert clarity(blurred) < 0.6 * clarity(good)


def test_a_frozen_clip_has_no_dynamic_and_is_perfectly_smooth(good: Chunk) -> None:
    frozen = np.repeat(good[:1], len(good), axis=0)
    assert dynamic(frozen) == 0
    assert dynamic(good) > 0
    assert motion(frozen) == 1


def test_jerks_lower_motion(good: Chunk) -> None:
    shuffled = good[np.random.default_rng(0).permutation(len(good))]
    assert motion(shuffled) < motion(good) < 1


def test_subjects_that_change_colour_lower_subject_and_leave_background(good: Chunk) -> None:
    recoloured = good.copy()
    recoloured[6:] = recoloured[6:][..., ::-1]
    recoloured[6:][(good[6:] < 0.2).all(-1)] = good[6:][(good[6:] < 0.2).all(-1)]
    assert subject(recoloured) < subject(good) - 0.1
    assert background(recoloured) == pytest.approx(background(good), abs=0.02)


def test_a_ground_that_changes_lowers_background(good: Chunk) -> None:
    lit = good.copy()
    lit[6:] = np.minimum(lit[6:] + 0.3, 1)
    assert background(lit) < background(good) - 0.05


@pytest.mark.parametrize("metric", PROXIES.values(), ids=PROXIES)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_empty_clip_gives_finite_numbers(metric: Callable[[Chunk], float], level: float) -> None:
    assert np.isfinite(metric(np.full((3, 8, 8, 3), level, np.float32)))


def test_every_proxy_is_named_as_one() -> None:
    assert all(name.endswith("(proxy)") for name in PROXIES)


def test_balls_that_fly_straight_have_next_to_no_residual_and_their_own_speed(good: Chunk) -> None:
    assert flight_residual(good) < 0.15
    assert speed(good) == pytest.approx((1 + np.hypot(0.6, 0.1)) / 2, rel=0.05)
    assert balls(good) == 2


def test_balls_that_slow_down_wobble_or_vanish_are_told(good: Chunk) -> None:
    assert speed(clip(0.5)) < 0.6 * speed(good)
    wobbling = np.stack([np.roll(frame, 2 * (index % 2), axis=1) for index, frame in enumerate(good)])
    assert flight_residual(wobbling) > 10 * flight_residual(good)
    gone = good.copy()
    gone[4:] = good[0, 0, 0]
    assert balls(gone) == pytest.approx(2 * 4 / len(good))


def test_without_balls_physics_has_nothing_to_say() -> None:
    empty = np.broadcast_to(clip()[0, 0, 0], (3, 32, 32, 3)).astype(np.float32)
    assert (flight_residual(empty), speed(empty), balls(empty)) == (0, 0, 0)
