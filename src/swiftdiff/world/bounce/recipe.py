"""The recipe that makes bounce's weights: resumable stages in order, then a half-precision world folder.

Every stage's finished part lies in the work folder as safetensors; a stage whose part is there is not run
again. The weights are averages over the last steps (EMA).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file

from swiftdiff.errors import StorageError
from swiftdiff.models.integrity import write_manifest
from swiftdiff.models.saving import save_half
from swiftdiff.models.shapes.trainer import Plan, Setting, StageProgress, Task, fit
from swiftdiff.models.shapes.workers import run_workers
from swiftdiff.world.loading import SETTINGS_NAME, WorldSettings, load_world

from . import autoencoder, transformer
from .architecture import FPS, LATENT_CHANNELS, LATENT_SIDE, build_autoencoder, build_transformer
from .scene import ACTION_NAMES, FRAMES_PER_BLOCK, NONE, SIDE

#: share of the time budget that each stage may use; with `start_from` the transformer's two share it alone
SHARES = {"autoencoder": 0.12, "transformer": 0.44, "transformer-own": 0.44}
_MEAN, _DEVIATION = "latents_mean", "latents_std"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `train_bounce` may be told.

    `budget_s` bounds the whole training (None: every stage runs all of its steps), `scale` multiplies every
    stage's steps and exists for trials and tests, `batch_scale` its batches: a GPU needs larger ones to have
    work. `start_from` is a finished world to train further: its autoencoder is kept.
    """

    work_folder: Path
    output_folder: Path
    device: str = "cpu"
    workers: int = 1
    seed: int = 0
    budget_s: float | None = None
    scale: float = 1.0
    batch_scale: int = 1
    start_from: Path | None = None


def train_bounce(options: TrainOptions, report: Callable[[StageProgress], None] | None = None) -> None:
    """Train, or go on training, bounce; write it to `options.output_folder` with its manifest.

    `report` is called in this process with a StageProgress after each step. Seeds fix the data, the initial
    weights and, where no time budget cuts a stage, the number of steps.

    Raises:
        ModelError: The loss is not finite, or a checkpoint or the world to start from cannot be read.
        StorageError: A file cannot be written.
    """
    try:
        options.work_folder.mkdir(parents=True, exist_ok=True)
        job = partial(_train, options=options)
        run_workers(job, options.workers, partial(_train, options=options, report=report))
        export(options.work_folder, options.output_folder)
    except OSError as error:
        raise StorageError(
            f"cannot write to {error.filename or options.work_folder}: {error.strerror or error}"
        ) from error


def _train(rank: int, options: TrainOptions, report: Callable[[StageProgress], None] | None = None) -> None:
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    setting = Setting(
        options.work_folder,
        device,
        rank,
        options.workers,
        options.seed,
        report=report if rank == 0 else None,
    )
    vae, net = build_autoencoder(), build_transformer()
    if options.start_from is not None:
        started = load_world(options.start_from)
        vae = started.vae
        net.load_state_dict(started.causal.transformer.state_dict())
    stages = _Stages(options, setting)
    stages.autoencoder(vae, trains=options.start_from is None)
    stages.transformer(net, vae)


class _Stages:
    """Runs a part's plans in order unless the part is already there."""

    def __init__(self, options: TrainOptions, setting: Setting) -> None:
        self._options = options
        self._setting = setting

    def autoencoder(self, vae: AutoencoderKLWan, *, trains: bool) -> None:
        path = self._options.work_folder / "vae.safetensors"
        device = self._setting.device
        if self._setting.is_missing(path):
            if trains:
                self._fit(autoencoder.PLAN, autoencoder.AutoencoderTask(vae, device))
                autoencoder.standardise(vae, device)
            latents = {name: torch.tensor(vae.config[name]) for name in (_MEAN, _DEVIATION)}
            self._setting.keep(path, vae.state_dict() | latents)
        load_autoencoder(path, vae)
        vae.eval()

    def transformer(self, net: WanTransformer3DModel, vae: AutoencoderKLWan) -> None:
        path = self._options.work_folder / "transformer.safetensors"
        if self._setting.is_missing(path):
            device = self._setting.device
            is_trained = self._options.start_from is not None
            plan = transformer.FORCED_PLAN
            if is_trained:
                plan = replace(plan, learning_rate=plan.learning_rate / 2)
            self._fit(plan, transformer.ForcedTask(net, vae, device, is_trained=is_trained))
            self._fit(transformer.OWN_PLAN, transformer.OwnTask(net, vae, device, is_trained=is_trained))
            self._setting.keep(path, net.state_dict())

    def _fit(self, plan: Plan, task: Task) -> None:
        options, budget_s = self._options, None
        if options.budget_s is not None:
            left_out = 0.0 if options.start_from is None else SHARES["autoencoder"]
            budget_s = options.budget_s * SHARES[plan.name] / (1 - left_out)
        steps = max(1, round(plan.steps * options.scale))
        batch_size = plan.batch_size * options.batch_scale
        fit(task, replace(plan, steps=steps, batch_size=batch_size), self._setting, budget_s)


def load_autoencoder(path: Path, vae: AutoencoderKLWan) -> None:
    """Give an autoencoder the weights and the latents' spread of a work folder's file."""
    tensors = load_file(path)
    noted = {name: tensors.pop(name).tolist() for name in (_MEAN, _DEVIATION)}
    vae.load_state_dict(tensors)
    vae.register_to_config(**noted)


def export(work_folder: Path, output_folder: Path) -> None:
    """Write the trained world as a folder that `load_world` takes, in half precision, with its manifest."""
    staging = output_folder.with_name(output_folder.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    vae, net = build_autoencoder(), build_transformer()
    load_autoencoder(work_folder / "vae.safetensors", vae)
    net.load_state_dict(load_file(work_folder / "transformer.safetensors"))
    save_half(vae, staging / "vae")
    save_half(net, staging / "transformer")
    text = json.dumps(bounce_settings().model_dump(mode="json"), indent=2) + "\n"
    (staging / SETTINGS_NAME).write_text(text, encoding="utf-8")
    write_manifest(staging, name="bounce", version="2", native_size=SIDE)
    shutil.rmtree(output_folder, ignore_errors=True)
    staging.replace(output_folder)


def bounce_settings() -> WorldSettings:
    """Return what bounce's ``world.json`` says."""
    return WorldSettings(
        frames_per_block=FRAMES_PER_BLOCK,
        latent_channels=LATENT_CHANNELS,
        latent_height=LATENT_SIDE,
        latent_width=LATENT_SIDE,
        fps=FPS,
        prompt_encoder="bounce",
        resting_prompt=ACTION_NAMES[NONE],
    )
