"""The world that ships: whole, small enough, and in its weights what its card says of a clip's beginning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import swiftdiff
from swiftdiff.models.integrity import read_manifest
from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.world.bounce.judge import follow, keeps_balls, obeys
from swiftdiff.world.bounce.physics import simulate
from swiftdiff.world.bounce.prompts import parse_scene
from swiftdiff.world.bounce.rollout import Roller
from swiftdiff.world.bounce.scene import ACTION_NAMES, COLOUR, NONE, Scenes
from swiftdiff.world.loading import WorldModel, load_world
from swiftdiff.world.presets import default_world

FOLDER = Path(swiftdiff.__file__).parent / "data" / "bounce"
SCENES = (
    "red ball at 8,20 moving 1.2,-0.7",
    "green ball at 24,8 moving -0.9,0.6",
    "cyan ball at 16,24 moving 0.6,0.7; magenta ball at 8,8 moving 0.8,-0.3",
    "yellow ball at 6,16 moving 0.7,0.2; blue ball at 25,24 moving -0.6,-0.6",
    "red ball at 8,16 moving 1.2,0.1; green ball at 22,17 moving -1,0.2",  # which meet at once
)


@pytest.fixture(scope="module")
def bounce() -> WorldModel:
    return load_world("bounce")


def scenes(texts: tuple[str, ...] = SCENES) -> Scenes:
    parsed = [parse_scene(text) for text in texts]
    names = ("position", "velocity", "colour", "present")
    return Scenes(*(np.concatenate([getattr(scene, name) for scene in parsed]) for name in names))


def test_it_is_what_is_measured_by_default_and_at_most_six_megabytes() -> None:
    assert default_world() == "bounce"
    assert read_manifest(FOLDER).name == "bounce"
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 6e6


def test_its_card_judges_these_weights(bounce: WorldModel) -> None:
    digest = weights_digest({"transformer": bounce.causal.transformer, "vae": bounce.vae})
    assert f"SHA-256 {digest}" in (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_balls_go_where_physics_says_for_three_blocks(bounce: WorldModel) -> None:
    """Within the 1.5 pixels that the card's mean is judged by."""
    actions = np.full((len(SCENES), 3), NONE)
    found = follow(Roller(bounce, 3).roll(scenes(), actions), simulate(scenes(), actions))
    assert not found.is_missing.any()
    assert found.errors.mean() < 1.5


def test_balls_are_as_many_and_as_coloured_after_forty_blocks(bounce: WorldModel) -> None:
    kept = keeps_balls(Roller(bounce, 3).roll(scenes(), np.full((len(SCENES), 40), NONE)), scenes())
    assert kept[:2].all()  # one ball
    assert kept.sum() >= len(SCENES) - 1  # the card says how often two are not


def test_one_ball_is_pushed_and_coloured_as_asked(bounce: WorldModel) -> None:
    wanted = np.array([kind for kind in range(len(ACTION_NAMES)) if kind != NONE])
    actions = np.full((len(wanted), 6), NONE)
    actions[:, 4] = wanted
    start = scenes(("red ball at 16,15 moving 0.5,0.4",) * len(wanted))
    pictures = Roller(bounce, 7).roll(start, actions)
    obeyed = obeys(pictures, start, 4, wanted)
    assert obeyed[wanted == COLOUR].all()
    assert obeyed.sum() >= len(wanted) - 1  # the card says how often it does not
