"""Owns what denoising is told: noise, prompts, ControlNets, schedule, guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from swiftdiff.pipeline.networks import ServedControlNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.schedule import Schedule
from swiftdiff.pipeline.split_unet import Prompt


@dataclass(frozen=True)
class ControlInput:
    """One ControlNet of a request, or of several that are denoised as one.

    Attributes:
        network: The ControlNet on every device that may compute it.
        image: Its control image, or one for each picture: [1 or pictures, 3, height, width] from 0 to 1.
        scale: Conditioning scale.
        start: Fraction of the steps after which it begins to act.
        end: Fraction of the steps after which it stops.
    """

    network: Replicas[ServedControlNet]
    image: torch.Tensor
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Tell whether it has any effect at a step; the window is the stock pipeline's, rounding included."""
        is_inside = not (step / num_steps < self.start or (step + 1) / num_steps > self.end)
        return is_inside and self.scale != 0.0


@dataclass(frozen=True)
class DenoiseJob:
    """All that denoising a request needs, or several as one. See `inputs` for making it of a stock pipeline.

    Attributes:
        latents: The noise to begin with, scaled, [pictures, channels, height, width].
        schedule: Its own.
        prompt: What the pictures show, a row a picture.
        negative_prompt: What they should not show; None turns guidance off.
        guidance_scale: Weight of classifier-free guidance; at most 1 turns it off.
        controlnets: In the order in which their residuals are summed.
    """

    latents: torch.Tensor
    schedule: Schedule
    prompt: Prompt
    negative_prompt: Prompt | None = None
    guidance_scale: float = 1.0
    controlnets: tuple[ControlInput, ...] = ()

    @property
    def is_guided(self) -> bool:
        """Tell whether both halves of guidance are computed."""
        return self.negative_prompt is not None and self.guidance_scale > 1.0


@dataclass(frozen=True)
class StepChange:
    """What a hook changed before a step: the UNet's weights at least, and prompts that were encoded again.

    Attributes:
        prompt: The new prompt; None if it is as before.
        negative_prompt: The new negative prompt; None if it is as before.
    """

    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None

    @property
    def changes_prompt(self) -> bool:
        """Tell whether a prompt was encoded again."""
        return self.prompt is not None or self.negative_prompt is not None

    def apply_to(self, job: DenoiseJob) -> DenoiseJob:
        """Return the job with the new prompts."""
        return replace(
            job,
            prompt=self.prompt or job.prompt,
            negative_prompt=job.negative_prompt and (self.negative_prompt or job.negative_prompt),
        )
