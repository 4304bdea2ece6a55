"""Owns the networks of one request: with guidance, and for steps outside the guidance interval without."""

from __future__ import annotations

from dataclasses import replace

from swiftdiff.pipeline.approximations import Approximations
from swiftdiff.pipeline.controlnets import ControlNets
from swiftdiff.pipeline.guidance import GuidedUNet
from swiftdiff.pipeline.job import DenoiseJob, StepChange
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.shard import Shard, make_shards
from swiftdiff.pipeline.work import Work


class RequestNetworks:
    """The UNet and the ControlNets that a request's steps run. What they keep is never shared.

    Args:
        job: The request.
        unets: The UNet on every lane's device.
        placement: Which lane computes what.
        unguided: The same for steps outside the guidance interval.
        approximations: What may be left out.
        reuse: Compute what does not change over the steps once.
        work: Where the request's work is noted.
    """

    def __init__(
        self,
        job: DenoiseJob,
        unets: Replicas[SplitUNet],
        *,
        placement: Placement,
        unguided: Placement,
        approximations: Approximations,
        reuse: bool,
        work: Work,
    ) -> None:
        self._job = job
        self._unets = unets
        self._placements = {True: placement, False: unguided}  # by whether the step may be guided
        self._approximations = approximations
        self._reuse = reuse
        self._work = work
        self._unet: dict[bool, GuidedUNet] = {}
        self._controlnets: dict[bool, ControlNets] = {}

    def at(self, step: int) -> tuple[GuidedUNet, ControlNets]:
        """Return the networks for a step."""
        guided = not self._job.is_guided or self._is_inside(step)
        if guided not in self._unet:
            self._unet[guided] = self._make_unet(guided)
        if guided not in self._controlnets:
            self._controlnets[guided] = self._make_controlnets(guided)
        return self._unet[guided], self._controlnets[guided]

    def change(self, change: StepChange) -> None:
        """Forget what the UNet was told and has kept: it came from other weights.

        ControlNets go on as they are unless a prompt was encoded again.
        """
        self._job = change.apply_to(self._job)
        self._unet.clear()
        if change.changes_prompt:
            self._controlnets.clear()

    def _is_inside(self, step: int) -> bool:
        interval = self._approximations.guidance_interval
        return interval is None or interval[0] < self._job.schedule.noise_level(step) <= interval[1]

    def _make_unet(self, guided: bool) -> GuidedUNet:
        job, shards = self._split(guided)
        kept = self._approximations.step_cache
        return GuidedUNet(self._unets, job, shards, self._reuse, self._work, num_steps_kept=kept)

    def _make_controlnets(self, guided: bool) -> ControlNets:
        job, shards = self._split(guided)
        kept = self._approximations.controlnet_reuse
        return ControlNets(
            job, shards, self._placements[guided], self._reuse, self._work, num_steps_kept=kept
        )

    def _split(self, guided: bool) -> tuple[DenoiseJob, list[Shard]]:
        job = self._job if guided else replace(self._job, negative_prompt=None)
        return job, make_shards(job, self._placements[guided])
