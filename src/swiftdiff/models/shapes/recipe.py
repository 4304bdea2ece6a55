"""The recipe that made the shipped weights: stages in order, each resumable, then a half-precision folder.

Every stage's finished part lies in the work folder as safetensors; a stage whose part is there is not run
again. The weights are averages over the last steps (EMA).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import nn

from swiftdiff.models.integrity import verify_manifest, write_manifest
from swiftdiff.models.lora_files import LoraLayer, save_lora
from swiftdiff.models.saving import save_half

from . import autoencoder, controlnets, diffusion, loras
from .architecture import (
    CONTROLNET_KINDS,
    NATIVE_SIDE,
    build_autoencoder,
    build_controlnet,
    build_scheduler,
    build_text_encoders,
    build_unet,
)
from .diffusion import Family
from .trainer import Plan, Setting, StageProgress, Task, fit
from .vocabulary import build_tokenizers
from .workers import run_workers

#: share of the whole time budget that each stage may use; they add up to 1, and where stages are left out
#: (`start_from`) the others share theirs alike
SHARES = {"autoencoder": 0.10, "base-64": 0.15, "base-128": 0.50, "controlnet": 0.05, "lora": 0.0125}
#: of a two-size stage's share, what the small pictures get
_SMALL_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `train_family` may be told.

    `budget_s` bounds the whole training (None: every stage runs all of its steps), `scale` multiplies every
    stage's steps and exists for trials and tests. `start_from` is a finished family to train further: its
    autoencoder is kept, base, ControlNets and LoRAs go on from its weights, at the native size alone.
    """

    work_folder: Path
    output_folder: Path
    device: str = "cpu"
    workers: int = 1
    seed: int = 0
    budget_s: float | None = None
    scale: float = 1.0
    start_from: Path | None = None


def train_family(options: TrainOptions, report: Callable[[StageProgress], None] | None = None) -> None:
    """Train, or go on training, the whole family; write it to `options.output_folder` with its manifest.

    `report` is called in this process with a StageProgress after each step. Seeds fix the data, the initial
    weights and, where no time budget cuts a stage, the number of steps.
    """
    options.work_folder.mkdir(parents=True, exist_ok=True)
    run_workers(
        partial(_train, options=options), options.workers, partial(_train, options=options, report=report)
    )
    export_family(options.work_folder, options.output_folder)


def _train(rank: int, options: TrainOptions, report: Callable[[StageProgress], None] | None = None) -> None:
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    setting = Setting(
        options.work_folder,
        device,
        rank,
        options.workers,
        options.seed,
        autocast=device.type == "cuda" or torch.cpu._is_avx512_bf16_supported(),
        report=report if rank == 0 else None,
    )
    stage = _Stages(options, setting)
    family = build_family(device)
    start = options.start_from
    if start is not None:
        _load_finished(family, start)
    stage.run(
        "vae",
        family.vae,
        [] if start else [(autoencoder.PLAN, lambda: autoencoder.AutoencoderTask(family.vae, device))],
    )
    base = nn.ModuleDict(family.parts)
    stage.run(
        "base",
        base,
        [
            (plan, partial(diffusion.BaseTask, family, side, weight))
            for side, weight, plan in diffusion.BASE_PLANS[1 if start else 0 :]
        ],
    )
    family.freeze()
    for kind in CONTROLNET_KINDS:
        torch.manual_seed(options.seed)
        net = build_controlnet(family.unet).to(device)
        if start is not None:
            net.load_state_dict(_finished(ControlNetModel, start / "controlnets" / kind))
        stage.run(
            f"controlnet-{kind}",
            net,
            [
                (plan, partial(controlnets.ControlNetTask, family, net, kind, side))
                for side, plan in controlnets.controlnet_plans(kind)[1 if start else 0 :]
            ],
        )
    for recipe in loras.LORA_RECIPES.values():
        stage.lora(recipe)


class _Stages:
    """Runs a part's plans in order unless the part is already there."""

    def __init__(self, options: TrainOptions, setting: Setting) -> None:
        self._options = options
        self._setting = setting

    def run(self, part: str, module: nn.Module, plans: list[tuple[Plan, Callable[[], Task]]]) -> None:
        path = self._options.work_folder / f"{part}.safetensors"
        if self._setting.is_missing(path):
            module.train()
            for plan, task in plans:
                self._fit(plan, task())
            if isinstance(module, AutoencoderKL) and plans:
                autoencoder.standardise(module, self._setting.device)
            self._setting.keep(path, module.state_dict())
        module.load_state_dict(load_file(path))
        module.eval()

    def lora(self, recipe: loras.LoraRecipe) -> None:
        path = self._options.work_folder / f"lora-{recipe.style}.safetensors"
        if not self._setting.is_missing(path):
            return
        family = load_base(self._options.work_folder, self._setting.device)
        start = self._options.start_from
        if start is None:
            loras.add_adapters(family, recipe, self._options.seed)
        else:
            loras.take_adapters(
                family, assemble_pipeline(family), start / "loras" / f"{recipe.style}.safetensors"
            )
        for side, plan in loras.lora_plans(recipe.style)[1 if start else 0 :]:
            self._fit(plan, loras.LoraTask(family, recipe, side))
        tensors = {}
        for name, module in family.parts.items():
            for layer, (down, up) in loras.layer_weights(module, recipe).items():
                tensors[f"{name}/{layer}/A"], tensors[f"{name}/{layer}/B"] = down, up
        self._setting.keep(path, tensors)

    def _fit(self, plan: Plan, task: Task) -> None:
        budget_s = None
        if self._options.budget_s is not None:
            share = _native_share(plan.name) if self._options.start_from else _share(plan.name)
            budget_s = share * self._options.budget_s
        steps = max(1, round(plan.steps * self._options.scale))
        fit(task, replace(plan, steps=steps), self._setting, budget_s)


def _share(plan: str) -> float:
    """What of the budget a plan gets when the whole family is trained."""
    if plan in SHARES:
        return SHARES[plan]
    kind, _, size = plan.split("-")
    return SHARES[kind] * (_SMALL_SHARE if size == "64" else 1 - _SMALL_SHARE)


def _native_share(plan: str) -> float:
    """What it gets when only the native size is trained, further."""
    left_out = SHARES["autoencoder"] + SHARES["base-64"]
    share = SHARES[plan] if plan in SHARES else SHARES[plan.split("-", maxsplit=1)[0]]
    return share / (1 - left_out)


def build_family(device: torch.device) -> Family:
    """The base's parts with fresh weights from torch's global seed."""
    tokenizer, _ = build_tokenizers()
    first, second = build_text_encoders(
        len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    )
    return Family(
        build_autoencoder().to(device), build_unet().to(device), first.to(device), second.to(device), device
    )


def _load_finished(family: Family, folder: Path) -> None:
    """Take over a finished family's base."""
    verify_manifest(folder)
    family.vae.load_state_dict(_finished(AutoencoderKL, folder / "base" / "vae"))
    for name, part in family.parts.items():
        part.load_state_dict(_finished(type(part), folder / "base" / name))


def _finished(kind: Any, folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = kind.from_pretrained(folder, dtype=torch.float32).state_dict()
    return weights


def load_base(work_folder: Path, device: torch.device) -> Family:
    """The trained base as the work folder has it."""
    family = build_family(device)
    family.vae.load_state_dict(load_file(work_folder / "vae.safetensors"))
    nn.ModuleDict(family.parts).load_state_dict(load_file(work_folder / "base.safetensors"))
    for module in (family.vae, *family.parts.values()):
        module.eval()
    return family


def assemble_pipeline(family: Family) -> StableDiffusionXLPipeline:
    """The stock pipeline around the family's parts."""
    tokenizer, tokenizer_2 = build_tokenizers()
    return StableDiffusionXLPipeline(
        vae=family.vae,
        text_encoder=family.text_encoder,
        text_encoder_2=family.text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=family.unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def export_family(work_folder: Path, output_folder: Path) -> None:
    """Write base, ControlNets and LoRAs in half precision, and the manifest with their SHA-256."""
    family = load_base(work_folder, torch.device("cpu"))
    staging = output_folder.with_name(output_folder.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    for kind in CONTROLNET_KINDS:
        net = build_controlnet(family.unet)
        net.load_state_dict(load_file(work_folder / f"controlnet-{kind}.safetensors"))
        net.half().save_pretrained(staging / "controlnets" / kind)
    for style, recipe in loras.LORA_RECIPES.items():
        _export_lora(
            work_folder / f"lora-{style}.safetensors", staging / "loras" / f"{style}.safetensors", recipe
        )
    save_half(assemble_pipeline(family), staging / "base")
    write_manifest(staging, name="shapes", version="1", native_size=NATIVE_SIDE)
    shutil.rmtree(output_folder, ignore_errors=True)
    staging.replace(output_folder)


def _export_lora(source: Path, target: Path, recipe: loras.LoraRecipe) -> None:
    tensors = load_file(source)
    layers: dict[str, dict[str, LoraLayer]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    for key in tensors:
        component, layer, side = key.split("/")
        if side == "A":
            up = tensors[f"{component}/{layer}/B"]
            layers[component][layer] = LoraLayer(tensors[key], up, recipe.alpha)
    save_lora(
        target,
        layers["unet"],
        layers["text_encoder"],
        layers["text_encoder_2"],
        fmt=recipe.file_format,
        layers_per_block=1,
    )
