"""The recipe trains every part, goes on where it stopped, and writes a family that stock diffusers loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from safetensors.torch import load_file

from swiftdiff.errors import ModelError
from swiftdiff.models.integrity import verify_manifest
from swiftdiff.models.shapes import autoencoder, loras
from swiftdiff.models.shapes.architecture import CONTROLNET_KINDS, build_autoencoder
from swiftdiff.models.shapes.recipe import TrainOptions, train_family
from swiftdiff.models.shapes.trainer import Plan, Setting, StageProgress, fit
from swiftdiff.models.shapes.vocabulary import build_tokenizers
from swiftdiff.models.shapes.workers import run_workers
from swiftdiff.scenes import caption, render, sample_scene


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StageProgress]]:
    folder = tmp_path_factory.mktemp("recipe")
    seen: list[StageProgress] = []
    train_family(TrainOptions(folder / "work", folder / "family", scale=1e-6), seen.append)
    return folder / "family", seen


def test_every_stage_runs_in_order(trained: tuple[Path, list[StageProgress]]) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in trained[1]))
    assert stages[:3] == ["autoencoder", "base-64", "base-128"]
    assert [s for s in stages if s.startswith("controlnet")] == [
        f"controlnet-{kind}-{side}" for kind in CONTROLNET_KINDS for side in (64, 128)
    ]
    assert len([s for s in stages if s.startswith("lora")]) == 2 * len(loras.LORA_RECIPES)
    assert all(progress.fraction == 1.0 for progress in trained[1])


def test_the_family_is_whole_and_stock_diffusers_draws_with_all_of_it(
    trained: tuple[Path, list[StageProgress]],
) -> None:
    family, _ = trained
    verify_manifest(family)
    pipeline = StableDiffusionXLPipeline.from_pretrained(family / "base")
    pipeline.set_progress_bar_config(disable=True)
    for style in loras.LORA_RECIPES:
        pipeline.load_lora_weights(str(family / "loras"), weight_name=f"{style}.safetensors")
        pipeline.unload_lora_weights()
    for kind in CONTROLNET_KINDS:
        ControlNetModel.from_pretrained(family / "controlnets" / kind)
    images = pipeline("a red circle", num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 128, 128, 3)
    assert np.isfinite(images).all()


def test_a_finished_family_is_trained_further_from_its_own_weights(
    trained: tuple[Path, list[StageProgress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, _ = trained
    stages: list[str] = []

    def keep(task: object, plan: Plan, *_: object) -> None:
        stages.append(plan.name)

    monkeypatch.setattr("swiftdiff.models.shapes.recipe.fit", keep)
    train_family(TrainOptions(tmp_path / "work", tmp_path / "family", start_from=family))
    assert stages[:2] == ["base-128", "controlnet-edges-128"]
    assert not [name for name in stages if name.startswith("autoencoder") or name == "base-64"]
    for part in ("base/unet", "base/vae", "controlnets/edges"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        before, after = load_file(family / file), load_file(tmp_path / "family" / file)
        assert all(torch.equal(before[name], after[name]) for name in before)


class _Line:
    """Fits y = w x, fast: the loop is what is tested."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"layer": self.layer}

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> torch.Tensor:
        x = torch.from_numpy(rng.standard_normal((batch_size, 1), np.float32))
        return (self.layer(x) - 3 * x).square().mean()


PLAN = Plan("line", steps=300, batch_size=8, learning_rate=0.1, warmup_steps=5, weight_decay=0.0)


def test_training_that_was_cut_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _Line()
    fit(whole, PLAN, Setting(tmp_path / "whole", torch.device("cpu")))
    monkeypatch.setattr("swiftdiff.models.shapes.trainer.CHECKPOINT_EVERY_S", 0.0)

    def stop(progress: StageProgress) -> None:
        if progress.step == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(_Line(), PLAN, Setting(tmp_path / "cut", torch.device("cpu"), report=stop))
    resumed = _Line()
    fit(resumed, PLAN, Setting(tmp_path / "cut", torch.device("cpu")))
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert abs(float(resumed.layer.weight) - 3) < 0.1


def test_a_time_budget_ends_a_stage_early_with_its_learning_rate_lowered(tmp_path: Path) -> None:
    seen: list[StageProgress] = []
    plan = Plan("line", steps=10**9, batch_size=8, learning_rate=0.1)
    fit(_Line(), plan, Setting(tmp_path, torch.device("cpu"), report=seen.append), budget_s=0.3)
    assert seen[-1].fraction == 1.0
    assert seen[-1].step < 10**6


def test_a_loss_that_is_not_finite_stops_with_one_clear_error(tmp_path: Path) -> None:
    class Broken(_Line):
        def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> torch.Tensor:
            return super().loss(rng, batch_size, fraction) * float("nan")

    with pytest.raises(ModelError, match=r"line: the loss became nan at step 0"):
        fit(Broken(), PLAN, Setting(tmp_path, torch.device("cpu")))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "line.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=r"line\.ckpt cannot be read"):
        fit(_Line(), PLAN, Setting(tmp_path, torch.device("cpu")))


TWO_WORKERS = """
import sys
from functools import partial
from pathlib import Path
import numpy as np, torch
from swiftdiff.models.shapes.trainer import Plan, Setting, fit
from swiftdiff.models.shapes.workers import run_workers

class Line:
    def __init__(self):
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.modules = {"layer": self.layer}
    def loss(self, rng, batch_size, fraction):
        x = torch.from_numpy(rng.standard_normal((batch_size, 1), np.float32))
        return (self.layer(x) - 3 * x).square().mean()

def job(rank, folder):
    line = Line()
    plan = Plan("line", steps=200, batch_size=8, learning_rate=0.1, warmup_steps=5, weight_decay=0.0)
    fit(line, plan, Setting(folder, torch.device("cpu"), rank, workers=2))
    torch.save(line.layer.state_dict(), folder / f"{rank}.pt")

if __name__ == "__main__":
    run_workers(partial(job, folder=Path(sys.argv[1])), 2)
"""


def test_two_workers_end_with_the_same_weights(tmp_path: Path) -> None:
    script = tmp_path / "two_workers.py"  # a file, since spawned workers import their job by name
    script.write_text(TWO_WORKERS)
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=300)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["weight"], second["weight"])
    assert abs(float(first["weight"]) - 3) < 0.1


class _DiesWhenRead:
    """A job that ends the process that unpickles it."""

    def __call__(self, rank: int) -> None:
        raise AssertionError("rank 0 must not begin")

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)


def test_a_worker_that_dies_at_once_is_reported_instead_of_waited_for() -> None:
    with pytest.raises(ModelError, match="worker ended with exit code 7 before it joined"):
        run_workers(_DiesWhenRead(), 2)


def test_captions_fit_the_tokenizers_without_spelling() -> None:
    rng = np.random.default_rng(0)
    for tokenizer in build_tokenizers():
        for _ in range(200):
            text = caption(sample_scene(rng), rng)
            ids = tokenizer(text).input_ids
            words = text.replace(",", " ,").split()
            assert len(ids) == len(words) + 2 <= tokenizer.model_max_length


def test_standardising_changes_the_latents_scale_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    vae = build_autoencoder().eval()
    pictures, weight = autoencoder.sample_pictures(np.random.default_rng(0), 4)
    assert pictures.shape == (4, 3, 64, 64)
    assert float(weight.max()) > float(weight.min())
    with torch.no_grad():
        before = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
        autoencoder.standardise(vae, torch.device("cpu"))
        plain = torch.from_numpy(render([sample_scene(rng) for _ in range(32)], 128))
        latents = vae.encode(plain.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
        after = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    assert latents.shape == (32, 4, 32, 32)
    assert latents.mean((0, 2, 3)).abs().max() < 0.6
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.4
    assert (after - before).abs().max() < 1e-4
