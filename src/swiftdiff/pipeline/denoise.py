"""The denoise loop: patch what arrived, start ControlNets and encoder half, join, decode, step.

It equals the stock SDXL pipelines' loop: bit for bit if both guidance halves share a lane, and up to the
rounding of a batch split in two if each has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from swiftdiff.pipeline.controlnets import ControlNets
from swiftdiff.pipeline.guidance import GuidedUNet
from swiftdiff.pipeline.job import DenoiseJob, StepChange
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.shard import make_shards
from swiftdiff.pipeline.work import Work

BeforeStep = Callable[[int], StepChange | None]


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

    Raises:
        ConfigError: A lane's device has no UNet.
    """

    def __init__(
        self, unets: Replicas[SplitUNet], placement: Placement, *, reuse_invariants: bool = True
    ) -> None:
        for lane in placement.unet:
            unets.on(lane)
        self._unets = unets
        self._placement = placement
        self._reuse = reuse_invariants

    def denoise(self, job: DenoiseJob, before_step: BeforeStep = lambda step: None) -> Denoised:
        """Return a request's denoised latents.

        Args:
            job: The request.
            before_step: Called with a step's number before it, under `torch.inference_mode` and when no lane
                works for the request, so that weights may be patched in place. It returns what it changed;
                what it raises ends the request.

        Raises:
            Exception: What a lane or the hook raised. By then no lane works for the request any more.
        """
        waited_s = [lane.waited_s for lane in self._placement.unet]
        with torch.inference_mode(), Work() as work:
            latents = self._run(job, before_step, work)
        waits = [lane.waited_s - before for lane, before in zip(self._placement.unet, waited_s, strict=True)]
        return Denoised(latents, max(waits))

    def _run(self, job: DenoiseJob, before_step: BeforeStep, work: Work) -> torch.Tensor:
        schedule, latents = job.schedule, job.latents
        unet, controlnets = self._make_unet(job, work), self._make_controlnets(job, work)
        for step in range(len(schedule)):
            if (change := before_step(step)) is not None:
                job = change.apply_to(job)
                unet = self._make_unet(job, work)  # what it was told came from other weights
                controlnets = self._make_controlnets(job, work) if change.changes_prompt else controlnets
            sample = schedule.scale(latents, step)
            residuals = controlnets.start(sample, step)
            encoded = unet.encode(sample, step)
            noise = unet.decode(encoded, residuals)
            latents = schedule.advance(noise, step, latents)
            work.settle()
        return latents

    def _make_unet(self, job: DenoiseJob, work: Work) -> GuidedUNet:
        return GuidedUNet(self._unets, job, make_shards(job, self._placement), self._reuse, work)

    def _make_controlnets(self, job: DenoiseJob, work: Work) -> ControlNets:
        return ControlNets(job, make_shards(job, self._placement), self._placement, self._reuse, work)
