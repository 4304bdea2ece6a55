"""Owns a request's ControlNets: each on its lane, beside the UNet's encoder half (ControlNet offload)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swiftdiff.pipeline.approximations import Kept
from swiftdiff.pipeline.conditioning import Conditioning, Hint
from swiftdiff.pipeline.job import ControlInput, DenoiseJob
from swiftdiff.pipeline.lane import Lane, LaneFuture
from swiftdiff.pipeline.placement import Placement
from swiftdiff.pipeline.shard import Shard
from swiftdiff.pipeline.work import Work
from swiftdiff.telemetry.timeline import spanned

# Of the middle block, then of the skip connections, shallowest first; or of the shallow path's skips alone.
Residuals = tuple[torch.Tensor, ...]


class ControlNets:
    """The ControlNets of one request.

    Args:
        job: The request.
        shards: Of its batch.
        placement: Which lane computes which ControlNet.
        reuse: Compute what does not change over the steps once.
        work: Where the request's work is noted.
        num_steps_kept: Steps for which residuals are used.
    """

    def __init__(
        self,
        job: DenoiseJob,
        shards: Sequence[Shard],
        placement: Placement,
        reuse: bool,
        work: Work,
        *,
        num_steps_kept: int = 1,
    ) -> None:
        self._num_steps = len(job.schedule)
        self._runs = [
            [
                _ControlNetRun(
                    control,
                    shard,
                    placement.control_lane(control, index, shard.lane, len(shards)),
                    job.schedule.timesteps,
                    reuse=reuse,
                    work=work,
                    num_steps_kept=num_steps_kept,
                )
                for index, control in enumerate(job.controlnets)
            ]
            for shard in shards
        ]

    def start(
        self, sample: torch.Tensor, step: int, *, shallow: bool = False
    ) -> list[list[LaneFuture[Residuals]]]:
        """Start the ControlNets whose window holds this step; those outside it are not computed.

        Args:
            sample: Scaled latents, [pictures, channels, height, width].
            step: Number of the step.
            shallow: The UNet takes its shallow path, and reads no more residuals than that.

        Returns:
            For each shard the residuals to come, in the order in which they are summed.
        """
        return [
            [run.start(sample, step, shallow) for run in runs if run.control.acts_at(step, self._num_steps)]
            for runs in self._runs
        ]


class _ControlNetRun:
    """One ControlNet for one shard."""

    def __init__(
        self,
        control: ControlInput,
        shard: Shard,
        lane: Lane,
        timesteps: torch.Tensor,
        *,
        reuse: bool,
        work: Work,
        num_steps_kept: int,
    ) -> None:
        self.control = control
        self._shard = shard
        self._lane = lane
        self._network = control.network.on(lane)
        self._timesteps = timesteps
        self._reuse = reuse
        self._work = work
        self._told: tuple[LaneFuture[Conditioning], LaneFuture[Hint]] | None = None
        self._kept = {is_shallow: Kept(num_steps_kept) for is_shallow in (False, True)}
        self._residuals: dict[bool, LaneFuture[Residuals]] = {}

    def start(self, sample: torch.Tensor, step: int, shallow: bool) -> LaneFuture[Residuals]:
        for is_shallow in (False, shallow):  # all residuals serve the shallow path too
            if self._kept[is_shallow].serves(step):
                return self._residuals[is_shallow]
        self._kept[shallow].computed(step)
        self._residuals[shallow] = residuals = self._submit(sample, step, shallow)
        return residuals

    def _submit(self, sample: torch.Tensor, step: int, shallow: bool) -> LaneFuture[Residuals]:
        if self._told is None:  # at its first step, for its window may never come
            self._told = self._prepare()
        conditioning, hint = self._told
        return self._work.submit(self._lane, self._compute, conditioning, hint, sample, step, shallow)

    def _prepare(self) -> tuple[LaneFuture[Conditioning], LaneFuture[Hint]]:
        network = self._network
        conditioning = self._work.submit(
            self._lane,
            Conditioning,
            network.controlnet,
            network.cross_attentions,
            self._timesteps,
            self._shard.prompt,
            self._reuse,
        )
        num_rows = len(self._shard.prompt.embeddings)
        hint = self._work.submit(
            self._lane, Hint, network.controlnet, self.control.image, num_rows, self._reuse
        )
        return conditioning, hint

    @spanned("controlnet")
    def _compute(
        self, conditioning: Conditioning, hint: Hint, sample: torch.Tensor, step: int, shallow: bool
    ) -> Residuals:
        rows = self._shard.expand(sample)
        compute = (shallow and self._network.compute_shallow) or self._network.compute
        residuals: Residuals = compute(rows, conditioning.time(step), hint.embedded(), *conditioning.prompt())
        # Not in the graph: a scale captured there would be every request's.
        return scale_residuals(residuals, self.control.scale)


def scale_residuals(residuals: Residuals, scale: float) -> Residuals:
    """Return residuals times a conditioning scale."""
    return residuals if scale == 1.0 else tuple(residual * scale for residual in residuals)


def of_shallow_path(residuals: Residuals, num_skips: int) -> Residuals:
    """Return the residuals of the first skip connections, of all or of none but these."""
    return residuals if len(residuals) == num_skips else residuals[1 : num_skips + 1]


def join_residuals(encoded: Sequence[torch.Tensor], several: Sequence[Residuals]) -> list[torch.Tensor]:
    """Return the encoder half's outputs plus the sum of the ControlNets' residuals.

    In the order of additions of stock's `MultiControlNetModel` and UNet, so that the sum has the same bits.
    """
    if not several:
        return list(encoded)
    total = list(several[0])
    for residuals in several[1:]:
        total = [sum_ + residual for sum_, residual in zip(total, residuals, strict=True)]
    return [output + sum_ for output, sum_ in zip(encoded, total, strict=True)]
