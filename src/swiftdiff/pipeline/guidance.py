"""Owns the UNet of one request: guidance's two halves in one batch, or each on a lane of its own.

The latter is the paper's latent parallelism: the halves meet only where their noises are combined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swiftdiff.pipeline.approximations import Kept
from swiftdiff.pipeline.conditioning import Conditioning
from swiftdiff.pipeline.controlnets import Residuals, join_residuals, of_shallow_path
from swiftdiff.pipeline.job import DenoiseJob
from swiftdiff.pipeline.lane import LaneFuture
from swiftdiff.pipeline.networks import SplitUNet
from swiftdiff.pipeline.replicas import Replicas
from swiftdiff.pipeline.shard import Shard
from swiftdiff.pipeline.work import Work
from swiftdiff.telemetry.timeline import spanned

# Time embedding, middle block's output, then skip connections; on the shallow path no middle block's.
Encoded = tuple[torch.Tensor, ...]


class GuidedUNet:
    """The UNet for one request's shards.

    Args:
        unets: The UNet on every lane's device.
        job: The request.
        shards: Of its batch.
        reuse: Compute what does not change over the steps once.
        work: Where the request's work is noted.
        num_steps_kept: Steps for which deep features are used; more than 1 needs UNets with a shallow path.
    """

    def __init__(
        self,
        unets: Replicas[SplitUNet],
        job: DenoiseJob,
        shards: Sequence[Shard],
        reuse: bool,
        work: Work,
        *,
        num_steps_kept: int = 1,
    ) -> None:
        self._guidance_scale = job.guidance_scale if job.is_guided else None
        timesteps = job.schedule.timesteps
        self._runs = [_UNetRun(unets.on(shard.lane), shard, timesteps, reuse, work) for shard in shards]
        self._deep = Kept(num_steps_kept)

    def is_shallow(self, step: int) -> bool:
        """Tell whether a step takes the shallow path, with deep features from before."""
        return self._deep.serves(step)

    def encode(self, sample: torch.Tensor, step: int) -> list[LaneFuture[Encoded]]:
        """Start the encoder halves.

        Args:
            sample: Scaled latents, [pictures, channels, height, width].
            step: Number of the step.
        """
        shallow = self.is_shallow(step)
        if not shallow:
            self._deep.computed(step)
        return [run.encode(sample, step, shallow) for run in self._runs]

    def decode(
        self,
        encoded: Sequence[LaneFuture[Encoded]],
        residuals: Sequence[Sequence[LaneFuture[Residuals]]],
    ) -> torch.Tensor:
        """Run the decoder halves once ControlNets' residuals are there, and return the guided noise."""
        started = [
            run.decode(hidden, several)
            for run, hidden, several in zip(self._runs, encoded, residuals, strict=True)
        ]
        return combine([future.result() for future in started], self._guidance_scale)


def combine(noises: Sequence[torch.Tensor], guidance_scale: float | None) -> torch.Tensor:
    """Return the noise of all shards, guided as stock does; without guidance what came.

    Args:
        noises: Of one shard without guidance or with both halves, or of a shard for each half.
        guidance_scale: Weight of the difference that the prompt makes; None is no guidance.
    """
    if guidance_scale is None:
        (noise,) = noises
        return noise
    negative, positive = noises if len(noises) > 1 else noises[0].chunk(2)
    return negative + guidance_scale * (positive.to(negative.device) - negative)


class _UNetRun:
    """The UNet for one shard."""

    def __init__(
        self, unet: SplitUNet, shard: Shard, timesteps: torch.Tensor, reuse: bool, work: Work
    ) -> None:
        self._unet = unet
        self._shard = shard
        self._timesteps = timesteps
        self._reuse = reuse
        self._work = work
        self._conditioning: LaneFuture[Conditioning] | None = None
        self._deep: torch.Tensor | None = None  # the lane's alone

    def encode(self, sample: torch.Tensor, step: int, shallow: bool) -> LaneFuture[Encoded]:
        return self._work.submit(self._shard.lane, self._encode, self._told(), sample, step, shallow)

    def decode(
        self, encoded: LaneFuture[Encoded], several: Sequence[LaneFuture[Residuals]]
    ) -> LaneFuture[torch.Tensor]:
        return self._work.submit(self._shard.lane, self._decode, self._told(), encoded, list(several))

    def _told(self) -> LaneFuture[Conditioning]:
        if self._conditioning is None:  # not before a hook had its chance to patch the weights
            self._conditioning = self._work.submit(
                self._shard.lane,
                Conditioning,
                self._unet.unet,
                self._unet.cross_attentions,
                self._timesteps,
                self._shard.prompt,
                self._reuse,
            )
        return self._conditioning

    @spanned("unet_encode")
    def _encode(self, conditioning: Conditioning, sample: torch.Tensor, step: int, shallow: bool) -> Encoded:
        time = conditioning.time(step)
        encode = self._unet.shallow.encode if shallow and self._unet.shallow else self._unet.encode
        return (time, *encode(self._shard.expand(sample), time, *conditioning.prompt(0)))

    @spanned("unet_decode")
    def _decode(
        self, conditioning: Conditioning, encoded: Encoded, several: Sequence[Residuals]
    ) -> torch.Tensor:
        time, *outputs = encoded
        prompt, shallow = conditioning.prompt(1), self._unet.shallow
        noise: torch.Tensor
        if shallow is None:
            hidden, *skips = join_residuals(outputs, several)
            noise = self._unet.decode(hidden, time, *skips, *prompt)
            return noise
        count = shallow.num_skips
        if len(outputs) == count:
            skips = join_residuals(outputs, [of_shallow_path(residuals, count) for residuals in several])
        else:
            hidden, *skips = join_residuals(outputs, several)
            self._deep = shallow.decode_deep(hidden, time, *skips, *prompt)
        assert self._deep is not None  # a request's first step is never shallow
        noise = shallow.decode(self._deep, time, *skips[:count], *prompt)
        return noise
