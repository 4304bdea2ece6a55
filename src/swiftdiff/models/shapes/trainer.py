"""The training loop that every part of the family shares: data-parallel, resumable, bounded in time.

On the CPU each worker process computes on one thread and gradients are averaged with gloo: small networks
lose more to the barriers inside an operator than to one all-reduce a step. On a GPU there is one worker.
"""

from __future__ import annotations

import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from swiftdiff.errors import ModelError

CHECKPOINT_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how a stage trains.

    `batch_size` is of all workers together. The learning rate warms up linearly, then follows half a cosine
    down to 2 % over whichever ends first: `steps`, or the time budget.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class StageProgress:
    """What a progress bar needs: `fraction` of the stage done, mean `loss` of late, seconds spent."""

    stage: str
    step: int
    fraction: float
    loss: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and with how many workers training runs; `rank` 0 owns checkpoints and progress."""

    folder: Path
    device: torch.device
    rank: int = 0
    workers: int = 1
    seed: int = 0
    autocast: bool = False
    report: Callable[[StageProgress], None] | None = None

    def is_missing(self, path: Path) -> bool:
        """Return the same in every worker: all look before any goes on and could write the file."""
        missing = not path.exists()
        self._meet()
        return missing

    def keep(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write a finished part whole or not at all; every worker goes on when it is there."""
        if self.rank == 0:
            temporary = path.with_suffix(".part")
            stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, temporary)
            temporary.replace(path)
        self._meet()

    def _meet(self) -> None:
        if self.workers > 1:
            distributed.barrier()


class Task(Protocol):
    """What is trained: its modules by name (the trainable parameters are theirs) and the loss of a batch."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Modules whose parameters that require gradients are trained, and whose state is checkpointed."""

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Scalar loss of a fresh batch drawn from `rng`; `fraction` of training is done."""


def fit(task: Task, plan: Plan, setting: Setting, budget_s: float | None = None) -> None:
    """Train `task` and leave the averaged (EMA) weights in its modules; goes on from its checkpoint if any.

    Raises:
        ModelError: The loss is not finite, or the checkpoint cannot be read.
    """
    parameters = [p for module in task.modules.values() for p in module.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    path = setting.folder / f"{plan.name}.ckpt"
    step, elapsed_before_s, fraction = _resume(path, parameters, average, optimizer)
    started_s = saved_s = time.monotonic()
    recent = math.nan
    while fraction < 1.0:
        rng = np.random.default_rng([setting.seed, step, setting.rank, *plan.name.encode()])
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(step, fraction, plan.warmup_steps)
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            loss = task.loss(rng, plan.batch_size // setting.workers, fraction)
        loss.backward()  # type: ignore[no-untyped-call]
        elapsed_s = elapsed_before_s + time.monotonic() - started_s
        fraction = (step + 1) / plan.steps
        if budget_s is not None:
            fraction = max(fraction, elapsed_s / budget_s)
        value, fraction = _average_gradients(parameters, float(loss.detach()), fraction, setting.workers)
        if not math.isfinite(value):
            raise ModelError(
                f"training {plan.name}: the loss became {value} at step {step}; try a smaller learning rate"
            )
        nn.utils.clip_grad_norm_(parameters, plan.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        _follow(average, parameters, min(plan.ema_decay, (1 + step) / (10 + step)))
        recent = value if math.isnan(recent) else 0.98 * recent + 0.02 * value
        if setting.rank == 0:
            if setting.report is not None:
                setting.report(StageProgress(plan.name, step, min(fraction, 1.0), recent, elapsed_s))
            if time.monotonic() - saved_s > CHECKPOINT_EVERY_S or fraction >= 1.0:
                state: dict[str, object] = {
                    "step": step,
                    "elapsed_s": elapsed_s,
                    "fraction": fraction,
                    "parameters": [p.detach() for p in parameters],
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                }
                _save(path, state)
                saved_s = time.monotonic()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)


def _schedule(step: int, fraction: float, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) * (
        0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
    )


def _average_gradients(
    parameters: list[nn.Parameter], loss: float, fraction: float, workers: int
) -> tuple[float, float]:
    """Average gradients, loss and fraction over the workers, so that all of them stop at the same step."""
    if workers == 1:
        return loss, fraction
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1).float() for g in gradients] + [torch.tensor([loss, fraction])])
    distributed.all_reduce(flat)
    flat /= workers
    offset = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = flat[offset : offset + gradient.numel()].view_as(gradient)
        offset += gradient.numel()
    return float(flat[-2]), float(flat[-1])


@torch.no_grad()
def _follow(average: list[Tensor], parameters: list[nn.Parameter], decay: float) -> None:
    torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        torch.save(state, file)
    Path(temporary).replace(path)  # a crash in the middle leaves the older checkpoint


def _resume(
    path: Path, parameters: list[nn.Parameter], average: list[Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, float, float]:
    if not path.exists():
        return 0, 0.0, 0.0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"checkpoint {path} cannot be read ({error}); remove it to train the stage anew"
        ) from error
    with torch.no_grad():
        for parameter, mean, value, saved_mean in zip(
            parameters, average, state["parameters"], state["average"], strict=True
        ):
            parameter.copy_(value)
            mean.copy_(saved_mean)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["elapsed_s"]), float(state["fraction"])
