"""Drift is measured of new clips for each policy beside the truth, and of clips that are on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swiftdiff.errors import ConfigError
from swiftdiff.world.drift.clips import read_clip
from swiftdiff.world.drift.error import Drift
from swiftdiff.world.drift.metrics import metrics_for
from swiftdiff.world.drift.run import TRUTH, drift_cache, make_clip, measure_policies, summarise_drift
from swiftdiff.world.drift.scenes import make_scene
from swiftdiff.world.loading import WorldModel

World = Callable[[int], WorldModel]


def test_each_seed_is_measured_with_each_policy_and_the_truth(tiny_world: World) -> None:
    model = tiny_world(0)
    found = list(
        measure_policies(model, ("window",), metrics_for(model), num_blocks=10, num_seeds=2, window_blocks=2)
    )
    assert [(way, seed) for way, seed, _ in found] == [
        (way, seed) for seed in (0, 1) for way in (TRUTH, "window")
    ]
    assert all(len(drift.values) == 10 for _, _, drifts in found for drift in drifts.values())
    assert {"clarity (proxy)", "residual (physics)"} <= found[0][2].keys()
    truth = next(drifts for way, _, drifts in found if way == TRUTH)
    assert set(truth["balls (physics)"].values) <= {1.0, 2.0}


def test_a_scene_comes_again_with_its_seed_and_its_truth_begins_where_the_prompt_says(
    tiny_world: World,
) -> None:
    one, again = (make_scene(tiny_world(0), 7, 2) for _ in range(2))
    assert one.prompt == again.prompt
    assert one.truth is not None
    assert again.truth is not None
    assert np.array_equal(one.truth, again.truth)
    assert one.truth.shape == (6, 32, 32, 3)
    x, y = map(float, one.prompt.split(" at ")[1].split(" ")[0].split(","))
    assert one.truth[0, int(y), int(x)].max() > 150  # a ball
    assert make_scene(tiny_world(0), 8, 2).prompt != one.prompt


def test_the_same_scene_makes_the_same_clip_and_a_prompt_of_the_users_has_no_truth(tiny_world: World) -> None:
    model = tiny_world(0)
    scene = make_scene(model, 3, 2, "red ball at 8,20 moving 1.2,-0.7")
    assert scene.truth is None
    clips = [make_clip(model, scene, drift_cache("window", 1, 2), 2) for _ in range(2)]
    assert clips[0].shape == (6, 32, 32, 3)
    assert np.array_equal(*clips)


def test_an_infinite_clip_leaves_only_the_normalised_form_with_an_interval() -> None:
    clips = [{"m": Drift.of([1.0, 1.5, 1.0])}, {"m": Drift.of([0.0, 1.0, 1.0])}]
    [summary] = summarise_drift("window", clips)
    assert summary.num_infinite == 1
    assert summary.linear is None
    assert math.isfinite(summary.normalised.low)
    assert summary.to_json()["linear"] is None
    [finite] = summarise_drift("window", clips[:1] * 3)
    assert finite.linear is not None
    assert finite.linear.value == pytest.approx(2 * 0.5)


def test_clips_are_read_from_gifs_folders_and_arrays(tmp_path: Path) -> None:
    frames = np.zeros((4, 6, 8, 3), np.uint8)
    frames[2] = 255
    np.save(tmp_path / "clip.npy", frames)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=40)
    for folder in (tmp_path / "plain", tmp_path / "made" / "frames"):
        folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number:06}.png")
    for name in ("clip.npy", "plain", "made"):
        assert np.array_equal(read_clip(tmp_path / name), frames)
    # Pillow joins the first two frames, which are equal, to one that is shown for twice as long
    assert np.array_equal(read_clip(tmp_path / "clip.gif"), frames)


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("frames")
    (tmp_path / "torn.gif").write_bytes(b"GIF89a\x01")
    np.save(tmp_path / "floats.npy", np.zeros((4, 2, 2, 3)))
    for name, complaint in (
        ("empty", "holds no pictures"),
        ("notes.txt", "unknown kind"),
        ("torn.gif", "cannot be read"),
        ("none.gif", "cannot be read"),
        ("none", "there is no such clip"),
        ("floats.npy", "must hold uint8"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            read_clip(tmp_path / name)
