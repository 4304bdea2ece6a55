"""The recipe runs every stage, goes on where it stopped, and writes a world that loads and can be judged."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from swiftdiff.cli import world
from swiftdiff.errors import ModelError, StorageError, SwiftdiffError
from swiftdiff.models.integrity import verify_manifest
from swiftdiff.models.shapes.trainer import Plan, StageProgress
from swiftdiff.world.bounce import transformer
from swiftdiff.world.bounce.clips import make_clips
from swiftdiff.world.bounce.contact_sheet import Pair, Sheet, draw_sheet
from swiftdiff.world.bounce.evaluation import EvaluationOptions, evaluate
from swiftdiff.world.bounce.evaluation_report import how_judged, model_card, write_reports
from swiftdiff.world.bounce.framewise import decode_clips
from swiftdiff.world.bounce.measure import look_at
from swiftdiff.world.bounce.prompts import action_features
from swiftdiff.world.bounce.recipe import TrainOptions, train_bounce
from swiftdiff.world.bounce.rollout import Roller
from swiftdiff.world.bounce.scene import COLOUR, NONE, describe_scene, sample_scenes
from swiftdiff.world.config import CacheConfig, SamplerConfig, WorldConfig
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel, load_world
from swiftdiff.world.presets import build_bounce_random

FILES = ("vae/diffusion_pytorch_model.safetensors", "transformer/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StageProgress]]:
    folder = tmp_path_factory.mktemp("recipe")
    seen: list[StageProgress] = []
    train_bounce(TrainOptions(folder / "work", folder / "bounce", scale=1e-6), seen.append)
    return folder / "bounce", seen


@pytest.fixture(scope="module")
def random_world() -> WorldModel:
    return build_bounce_random()


def test_every_stage_runs_in_order(trained: tuple[Path, list[StageProgress]]) -> None:
    assert [progress.stage for progress in trained[1]] == ["autoencoder", "transformer", "transformer-own"]
    assert all(progress.fraction == 1.0 for progress in trained[1])


def test_the_world_is_whole_small_and_loads(trained: tuple[Path, list[StageProgress]]) -> None:
    folder = trained[0]
    manifest = verify_manifest(folder)
    assert manifest.num_bytes < 6e6
    model = load_world(folder)
    assert model.settings.resting_prompt == "none"
    spread = json.loads((folder / "vae" / "config.json").read_text())["latents_std"]
    assert all(0 < value != 1 for value in spread)


def test_what_is_finished_is_not_trained_again(
    trained: tuple[Path, list[StageProgress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained[0].parent / "work", tmp_path / "work")
    monkeypatch.setattr("swiftdiff.world.bounce.recipe.fit", lambda *_: pytest.fail("trained again"))
    train_bounce(TrainOptions(tmp_path / "work", tmp_path / "bounce"))
    for file in FILES:
        before, after = load_file(trained[0] / file), load_file(tmp_path / "bounce" / file)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_finished_world_is_trained_further_from_its_own_weights(
    trained: tuple[Path, list[StageProgress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: dict[str, float | None] = {}

    def keep(_: object, plan: Plan, __: object, budget_s: float | None) -> None:
        stages[plan.name] = budget_s

    monkeypatch.setattr("swiftdiff.world.bounce.recipe.fit", keep)
    options = TrainOptions(tmp_path / "work", tmp_path / "bounce", start_from=trained[0], budget_s=100.0)
    train_bounce(options)
    assert list(stages) == ["transformer", "transformer-own"]
    assert sum(share or 0 for share in stages.values()) == pytest.approx(100)
    for file in FILES:
        before, after = load_file(trained[0] / file), load_file(tmp_path / "bounce" / file)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_damaged_world_to_start_from_and_a_folder_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"world\.json"):
        train_bounce(TrainOptions(tmp_path / "work", tmp_path / "bounce", start_from=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        train_bounce(TrainOptions(tmp_path / "file" / "work", tmp_path / "bounce"))


def test_both_tasks_learn_from_every_layer(random_world: WorldModel) -> None:
    net = random_world.causal.transformer
    for kind in (transformer.ForcedTask, transformer.OwnTask):
        task = kind(net.requires_grad_(True), random_world.vae, torch.device("cpu"))
        loss = task.loss(np.random.default_rng(0), 6, 1.0)
        loss.backward()
        assert float(loss.detach()) > 0
        silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert not silent
        net.zero_grad()
    net.requires_grad_(False)


def test_clips_that_begin_in_the_middle_have_a_first_block_that_does_not_count(
    random_world: WorldModel,
) -> None:
    clips = make_clips(np.random.default_rng(0), 200, 2, random_world.vae)
    assert clips.latents.shape == clips.past.shape == (200, 4, 6, 8, 8)
    is_faulty = (clips.latents != clips.past).flatten(1).any(1)
    assert 50 < int(is_faulty.sum()) < 150
    has_scene = clips.prompts[:, 0, 1:, 8:10].flatten(1).any(1)  # it says where balls are
    counts = clips.counts[:, 0] > 0
    assert 60 < int((~counts).sum()) < 100
    assert not has_scene[~counts].any()
    assert int(has_scene[counts].sum()) > 0.9 * int(counts.sum())  # the others have no prompt, for guidance
    assert bool(clips.counts[:, 1].all())
    resting = torch.from_numpy(action_features(np.array([NONE])))[:, 0]
    assert 100 < int((clips.prompts[:, 1, 0] == resting).all(1).sum()) < 190
    tells_balls = clips.prompts[:, 1, 1:, 0].any(1)
    assert int(tells_balls.sum()) > 180
    assert not clips.prompts[:, 1, 1:, 8:31].any()


@pytest.mark.parametrize("renoise", [False, True])
def test_clips_made_for_the_judge_are_those_of_the_engine(random_world: WorldModel, renoise: bool) -> None:
    scenes = sample_scenes(np.random.default_rng(0), 2)
    cache, sampler = CacheConfig(window_blocks=2), SamplerConfig(renoise=renoise)
    actions = np.full((2, 4), NONE)
    actions[1, 1] = COLOUR
    made = Roller(random_world, 5, cache, sampler).roll(scenes, actions)
    with (
        WorldEngine(random_world, WorldConfig(cache=cache, sampler=sampler)) as engine,
        engine.open(describe_scene(scenes, 1), seed=6) as session,
    ):
        session.steer("colour", blocks=1)
        frames = np.concatenate([session.next_block().frames for _ in range(4)])
    assert np.abs(made[1].astype(int) - frames).max() <= 1


def test_random_weights_miss_every_aim_and_the_card_says_so(random_world: WorldModel, tmp_path: Path) -> None:
    options = EvaluationOptions(clips=5, blocks=5)
    evaluation = evaluate(random_world, options)
    aims = [measure for measure in evaluation.measures if measure.aim is not None]
    assert len(aims) == 3
    assert not any(measure.is_met for measure in aims)
    card = model_card(evaluation, options)
    assert "Not good enough" in card
    assert how_judged(options) in card
    assert "noise of seeds 1000 to 1004" in card
    files = write_reports(evaluation, options, "random", tmp_path)
    told = json.loads(files[0].read_text())
    assert told["measures"][0]["truth"]["value"] < 0.2
    assert len(told["weights_sha256"]) == 64
    for path, sheet in zip(files[2:], evaluation.sheets, strict=True):
        with Image.open(path) as picture:
            assert picture.width > 96 * len(sheet.frames)
            assert picture.height > 2 * 96 * len(sheet.pairs)


def test_a_sheet_shows_the_truth_above_and_the_generated_clip_below() -> None:
    truth, made = (np.full((4, 32, 32, 3), value, np.uint8) for value in (10, 200))
    data = draw_sheet(Sheet("a", (0, 3), (Pair("one", truth, made), Pair("two", truth, made))))
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    is_truth, is_made = ((pixels == value).all(-1) for value in (10, 200))
    assert is_truth.sum() == is_made.sum() == 2 * 2 * 96 * 96
    column = pixels[:, -50, 0]
    runs = [
        value for value, before in zip(column[1:], column, strict=False) if value != before and value < 255
    ]
    assert runs == [10, 200, 10, 200]


def test_the_judge_wants_a_bounce_world(random_world: WorldModel) -> None:
    settings = random_world.settings.model_copy(update={"prompt_encoder": "embeddings"})
    other = WorldModel("other", random_world.causal, random_world.vae, random_world.prompts, settings)
    with pytest.raises(ModelError, match="no bounce world"):
        evaluate(other, EvaluationOptions(clips=5))


def test_pictures_of_latents_are_pictures(random_world: WorldModel) -> None:
    pictures = decode_clips(random_world.vae, torch.zeros(1, 4, 3, 8, 8))
    assert pictures.shape == (1, 3, 3, 32, 32)
    assert look_at(np.zeros((1, 32, 32, 3), np.uint8)).pixels.shape == (1, 6)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["train", "bouncy"], "no recipe for 'bouncy'"),
        (["train", "--device", "cuda:77"], "cuda:77"),
        (["train", "--device", "cuda", "--workers", "2"], "--workers 2 is for the CPU"),
        (["evaluate", "nowhere"], "unknown world 'nowhere'"),
    ],
)
def test_the_commands_say_what_they_do_not_know(arguments: list[str], reason: str) -> None:
    with pytest.raises(SwiftdiffError, match=reason):
        CliRunner().invoke(world.app, arguments, catch_exceptions=False)
