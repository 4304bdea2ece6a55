"""Owns one request's steps: its own scheduler, and how the stock pipelines call it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch


class Schedule:
    """A scheduler that belongs to one request, so that requests never share its state.

    Args:
        scheduler: A diffusers scheduler; its config is taken, it is not used itself.
        num_inference_steps: As the request says.
        device: Where the latents live.
        generators: For schedulers that add noise at every step; one for each picture.

    Attributes:
        timesteps: Of the network's training, one for each step; often longer than `num_inference_steps` for
            schedulers of higher order.
        init_noise_sigma: What unit noise is multiplied with to begin.
        estimate: The last step's guess of the finished latents, where the scheduler tells; else the latents.
    """

    def __init__(
        self,
        scheduler: Any,
        num_inference_steps: int,
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._scheduler = type(scheduler).from_config(scheduler.config)
        self._scheduler.set_timesteps(num_inference_steps, device=device)
        accepted = inspect.signature(self._scheduler.step).parameters
        self._extra = {"generator": list(generators)} if generators and "generator" in accepted else {}
        self.timesteps: torch.Tensor = self._scheduler.timesteps
        self.init_noise_sigma = float(self._scheduler.init_noise_sigma)
        self.estimate: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def scale(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Return the latents as the networks want them at a step."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, self.timesteps[step])
        return scaled

    def advance(self, noise: torch.Tensor, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents one step on, given the predicted noise, which may come from another device."""
        results: tuple[torch.Tensor, ...] = self._scheduler.step(
            noise.to(latents.device), self.timesteps[step], latents, return_dict=False, **self._extra
        )
        self.estimate = results[-1]
        return results[0]

    def noise_level(self, step: int) -> float:
        """Return sigma at a step: how much noise there is for data of weight 1, as in arXiv 2206.00364."""
        sigmas = getattr(self._scheduler, "sigmas", None)
        if sigmas is not None:
            return float(sigmas[step])
        kept = float(self._scheduler.alphas_cumprod[int(self.timesteps[step])])
        return math.sqrt((1 - kept) / kept)
