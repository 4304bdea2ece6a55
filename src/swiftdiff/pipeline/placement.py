"""Decides which lane computes what."""

from __future__ import annotations

from dataclasses import dataclass

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.job import ControlInput
from swiftdiff.pipeline.lane import Lane


@dataclass(frozen=True)
class Placement:
    """The lanes of one denoiser.

    Attributes:
        unet: One lane for both guidance halves in one batch, or two with a half each (latent parallelism).
        controlnets: Lanes that ControlNets are sent to (ControlNet offload), lanes of the UNet among them or
            not; none keeps each shard's ControlNets on the lane of its UNet.

    Raises:
        ConfigError: ``unet`` has neither one nor two lanes.
    """

    unet: tuple[Lane, ...]
    controlnets: tuple[Lane, ...] = ()

    def __post_init__(self) -> None:
        if len(self.unet) not in (1, 2):
            raise ConfigError.for_field("unet lanes", len(self.unet), "1 or 2")

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes, each once."""
        return tuple(dict.fromkeys((*self.unet, *self.controlnets)))

    def control_lane(self, control: ControlInput, index: int, own: Lane, num_shards: int) -> Lane:
        """Return the lane that computes a request's ControlNet number ``index`` for one shard of the batch.

        Args:
            control: The ControlNet; lanes of devices that it is not on are passed over.
            index: Its number among the request's ControlNets.
            own: The lane of that shard's UNet.
            num_shards: Shards of the request: with several, the UNet's lanes are all busy.
        """
        # Where every lane has a shard of its own to do, sending work to the other would only make it wait.
        if not self.controlnets or (num_shards > 1 and own in self.controlnets):
            return own
        # Other lanes first: they compute beside the encoder half.
        others = [lane for lane in self.controlnets if lane is not own]
        lanes = [*others, own] if own in self.controlnets else others
        able = [lane for lane in lanes if lane in control.network]
        return able[index % len(able)] if able else own
