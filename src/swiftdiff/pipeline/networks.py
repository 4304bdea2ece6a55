"""Owns what stays of a network between requests: its halves, and the graphs captured of them."""

from __future__ import annotations

import json

from diffusers import ControlNetModel, UNet2DConditionModel

from swiftdiff.pipeline.graphs import ReplayKind, TracedGraphs, TracedReplay, make_replay
from swiftdiff.pipeline.kernels import PackedCopies, packed_bytes, tuned
from swiftdiff.pipeline.split_unet import ControlNetTrunk, UNetDecoder, UNetEncoder

_OF_CONTROL_IMAGE = ("conditioning_embedding_out_channels", "controlnet_conditioning_channel_order")


class SplitUNet:
    """A stock UNet as two halves that can be replayed; make one a model and device, and keep it.

    Args:
        unet: The stock model.
        replay: How its halves are run.
        tune: Run them by `kernels.tuned`.

    Attributes:
        unet: The stock model, whose weights the halves use.
        encode: `UNetEncoder`, replayed.
        decode: `UNetDecoder`, replayed.
        num_skips: Skip connections between the halves.

    Raises:
        ModelError: The UNet is of a kind that is not supported.
    """

    def __init__(
        self, unet: UNet2DConditionModel, replay: ReplayKind = "eager", *, tune: bool = False
    ) -> None:
        self.unet = unet
        encoder, decoder = UNetEncoder(unet), UNetDecoder(unet)
        halves = (tuned(encoder), tuned(decoder)) if tune else (encoder, decoder)
        self.encode, self.decode = (make_replay(replay, half) for half in halves)
        self._copies = [PackedCopies(half) for half in halves]
        self.num_skips = decoder.num_skips
        self.cross_attentions = (encoder.cross_attentions, decoder.cross_attentions)

    def refresh(self) -> None:
        """Take note of weights that were patched or restored. No lane may compute meanwhile."""
        for copies, replay in zip(self._copies, (self.encode, self.decode), strict=True):
            if copies.renew() and isinstance(replay, TracedReplay):
                replay.rebind()


class ServedControlNet:
    """A stock ControlNet that can be replayed; make one a model and device, and keep it.

    Args:
        controlnet: The stock model.
        replay: How it is run.
        graphs: Traced graphs to share with other ControlNets of its architecture; None shares none.
        tune: Run it by `kernels.tuned`.

    Attributes:
        controlnet: The stock model, whose weights must not change any more.
        compute: `ControlNetTrunk`, replayed.
        extra_bytes: Memory beside the stock model's.

    Raises:
        AdapterError: The ControlNet is of a kind that is not supported.
    """

    def __init__(
        self,
        controlnet: ControlNetModel,
        replay: ReplayKind = "eager",
        graphs: TracedGraphs | None = None,
        *,
        tune: bool = False,
    ) -> None:
        self.controlnet = controlnet
        trunk = ControlNetTrunk(controlnet)
        computed = tuned(trunk, fixed=True) if tune else trunk
        self.compute = make_replay(replay, computed, graphs, _settings_of(controlnet))
        self.extra_bytes = packed_bytes(computed)
        self.cross_attentions = (trunk.cross_attentions,)


def _settings_of(controlnet: ControlNetModel) -> str:
    """Return what tells trunks apart: the config without origins and the control image's embedding."""
    settings = {key: value for key, value in controlnet.config.items() if not key.startswith("_")}
    for key in _OF_CONTROL_IMAGE:
        settings.pop(key, None)
    return json.dumps(settings, sort_keys=True)
