"""The denoise loop: patch what arrived, start ControlNets and encoder half, join, decode, step.

It equals the stock SDXL pipelines' loop: bit for bit if both guidance halves share a lane, and up to the
rounding of a batch split in two if each has its own; with `Approximations` it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from swiftdiff.pipeline.approximations import Approximations
from swiftdiff.pipeline.job import DenoiseJob, StepChange
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.pace import Pace
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.request_networks import RequestNetworks
from swiftdiff.pipeline.work import Work

BeforeStep = Callable[[int], StepChange | None]

#: Is told a step, how many there are, and latents that show how far the pictures are.
Show = Callable[[int, int, torch.Tensor], None]


@dataclass(frozen=True)
class Denoised:
    """What denoising a request gave.

    Attributes:
        latents: Ready for the VAE once divided by its scaling factor, [pictures, channels, height, width].
        controlnet_wait_s: Seconds that the UNet's lanes waited for ControlNets; of two lanes the longer.
    """

    latents: torch.Tensor
    controlnet_wait_s: float


class Denoiser:
    """Denoises requests, one at a time, on its lanes. Keeps nothing of a request.

    Args:
        unets: The UNet on the device of each of the placement's UNet lanes.
        placement: Which lane computes what.
        reuse_invariants: Compute what does not change over a request's steps once; false is for comparison.
        approximations: What is left out; a step cache needs UNets with a shallow path.
        unguided: Which lane computes what at steps outside the guidance interval; None is as at the others.

    Raises:
        ConfigError: A lane's device has no UNet.
    """

    def __init__(
        self,
        unets: Replicas[SplitUNet],
        placement: Placement,
        *,
        reuse_invariants: bool = True,
        approximations: Approximations | None = None,
        unguided: Placement | None = None,
    ) -> None:
        self._placement = placement
        self._unguided = unguided or placement
        self._unet_lanes = tuple(dict.fromkeys((*placement.unet, *self._unguided.unet)))
        for lane in self._unet_lanes:
            unets.on(lane)
        self._unets = unets
        self._reuse = reuse_invariants
        self._approximations = approximations or Approximations()

    def denoise(
        self, job: DenoiseJob, before_step: BeforeStep = lambda step: None, show: Show | None = None
    ) -> Denoised:
        """Return a request's denoised latents.

        Args:
            job: The request.
            before_step: Called with a step's number before it, under `torch.inference_mode` and when no lane
                works for the request, so that weights may be patched in place. It returns what it changed;
                what it raises ends the request.
            show: Called before that; what it raises ends the request.

        Raises:
            Exception: What a lane or the hook raised. By then no lane works for the request any more.
        """
        waited_s = [lane.waited_s for lane in self._unet_lanes]
        with torch.inference_mode(), Work() as work:
            latents = self._run(job, before_step, show, work)
        waits = [lane.waited_s - before for lane, before in zip(self._unet_lanes, waited_s, strict=True)]
        return Denoised(latents, max(waits))

    def _run(self, job: DenoiseJob, before_step: BeforeStep, show: Show | None, work: Work) -> torch.Tensor:
        schedule, latents = job.schedule, job.latents
        networks = RequestNetworks(
            job,
            self._unets,
            placement=self._placement,
            unguided=self._unguided,
            approximations=self._approximations,
            reuse=self._reuse,
            work=work,
        )
        pace = Pace.on(latents.device)
        for step in range(len(schedule)):
            if show is not None:
                show(step, len(schedule), latents if schedule.estimate is None else schedule.estimate)
            if (change := before_step(step)) is not None:
                networks.change(change)
            unet, controlnets = networks.at(step)
            sample = schedule.scale(latents, step)
            residuals = controlnets.start(sample, step, shallow=unet.is_shallow(step))
            encoded = unet.encode(sample, step)
            noise = unet.decode(encoded, residuals)
            latents = schedule.advance(noise, step, latents)
            work.settle()
            if pace is not None:
                pace.end_step()
        return latents
