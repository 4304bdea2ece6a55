"""Owns what stays of a network between requests: its halves, and the graphs captured of them."""

from __future__ import annotations

from diffusers import ControlNetModel, UNet2DConditionModel

from swiftdiff.pipeline.graphs import ReplayKind, make_replay
from swiftdiff.pipeline.split_unet import ControlNetTrunk, UNetDecoder, UNetEncoder


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

    Attributes:
        controlnet: The stock model.
        compute: `ControlNetTrunk`, replayed.

    Raises:
        AdapterError: The ControlNet is of a kind that is not supported.
    """

    def __init__(self, controlnet: ControlNetModel, replay: ReplayKind = "eager") -> None:
        self.controlnet = controlnet
        trunk = ControlNetTrunk(controlnet)
        self.compute = make_replay(replay, trunk)
        self.cross_attentions = (trunk.cross_attentions,)
