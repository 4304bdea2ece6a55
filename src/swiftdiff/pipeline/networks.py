"""Owns what stays of a network between requests: its halves, and the graphs captured of them."""

from __future__ import annotations

import json

from diffusers import ControlNetModel, UNet2DConditionModel

from swiftdiff.pipeline.graphs import ReplayKind, TracedGraphs, make_replay
from swiftdiff.pipeline.split_unet import ControlNetTrunk, UNetDecoder, UNetEncoder

_OF_CONTROL_IMAGE = ("conditioning_embedding_out_channels", "controlnet_conditioning_channel_order")


class SplitUNet:
    """A stock UNet as two halves that can be replayed; make one a model and device, and keep it.

    Attributes:
        unet: The stock model, whose weights the halves use.
        encode: `UNetEncoder`, replayed.
        decode: `UNetDecoder`, replayed.
        num_skips: Skip connections between the halves.

    Raises:
        ModelError: The UNet is of a kind that is not supported.
    """

    def __init__(self, unet: UNet2DConditionModel, replay: ReplayKind = "eager") -> None:
        self.unet = unet
        encoder, decoder = UNetEncoder(unet), UNetDecoder(unet)
        self.encode = make_replay(replay, encoder)
        self.decode = make_replay(replay, decoder)
        self.num_skips = decoder.num_skips
        self.cross_attentions = (encoder.cross_attentions, decoder.cross_attentions)


class ServedControlNet:
    """A stock ControlNet that can be replayed; make one a model and device, and keep it.

    Args:
        controlnet: The stock model.
        replay: How it is run.
        graphs: Traced graphs to share with other ControlNets of its architecture; None shares none.

    Attributes:
        controlnet: The stock model.
        compute: `ControlNetTrunk`, replayed.

    Raises:
        AdapterError: The ControlNet is of a kind that is not supported.
    """

    def __init__(
        self,
        controlnet: ControlNetModel,
        replay: ReplayKind = "eager",
        graphs: TracedGraphs | None = None,
    ) -> None:
        self.controlnet = controlnet
        trunk = ControlNetTrunk(controlnet)
        self.compute = make_replay(replay, trunk, graphs, _settings_of(controlnet))
        self.cross_attentions = (trunk.cross_attentions,)


def _settings_of(controlnet: ControlNetModel) -> str:
    """Return what tells trunks apart: the config without origins and the control image's embedding."""
    settings = {key: value for key, value in controlnet.config.items() if not key.startswith("_")}
    for key in _OF_CONTROL_IMAGE:
        settings.pop(key, None)
    return json.dumps(settings, sort_keys=True)
