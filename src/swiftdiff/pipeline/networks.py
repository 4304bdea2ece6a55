"""Owns what stays of a network between requests: its halves, and the graphs captured of them."""

from __future__ import annotations

import json

from diffusers import ControlNetModel, UNet2DConditionModel

from swiftdiff.pipeline.acceleration import PLAIN, Acceleration
from swiftdiff.pipeline.cuda_graphs import CudaGraphs
from swiftdiff.pipeline.graphs import Replay, ReplayKind, TracedGraphs, TracedReplay, make_replay
from swiftdiff.pipeline.kernels import PackedCopies, packed_bytes
from swiftdiff.pipeline.quantized import QuantizedCopies
from swiftdiff.pipeline.shallow_path import DeepDecoder, ShallowDecoder, ShallowEncoder, ShallowTrunk
from swiftdiff.pipeline.split_unet import ControlNetTrunk, UNetDecoder, UNetEncoder

_OF_CONTROL_IMAGE = ("conditioning_embedding_out_channels", "controlnet_conditioning_channel_order")


class ShallowUNet:
    """The parts of a UNet for steps that keep deep features or use them.

    Args:
        encoder: The encoder half.
        decoder: The decoder half.
        replay: How the parts are run.
        cuda_graphs: As for `make_replay`.

    Attributes:
        encode: `ShallowEncoder`, replayed.
        decode_deep: `DeepDecoder`, replayed.
        decode: `ShallowDecoder`, replayed.
        num_skips: Skip connections that ``encode`` returns.

    Raises:
        ModelError: The UNet has nothing deep.
    """

    def __init__(
        self,
        encoder: UNetEncoder,
        decoder: UNetDecoder,
        replay: ReplayKind,
        cuda_graphs: CudaGraphs | None = None,
    ) -> None:
        parts = (ShallowEncoder(encoder), DeepDecoder(decoder), ShallowDecoder(decoder))
        self.encode, self.decode_deep, self.decode = (
            make_replay(replay, part, cuda_graphs=cuda_graphs) for part in parts
        )
        self.num_skips = parts[2].num_skips

    @property
    def replays(self) -> tuple[Replay, ...]:
        """All that it runs."""
        return self.encode, self.decode_deep, self.decode


class SplitUNet:
    """A stock UNet as two halves that can be replayed; make one a model and device, and keep it.

    Args:
        unet: The stock model.
        replay: How its halves are run.
        acceleration: What they are made of.
        with_shallow_path: Split them for a step cache too.

    Attributes:
        unet: The stock model, whose weights the halves use.
        encode: `UNetEncoder`, replayed.
        decode: `UNetDecoder`, replayed.
        num_skips: Skip connections between the halves.
        shallow: The parts for a step cache; None without one.

    Raises:
        ModelError: The UNet is of a kind that is not supported.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        replay: ReplayKind = "eager",
        *,
        acceleration: Acceleration = PLAIN,
        with_shallow_path: bool = False,
    ) -> None:
        acceleration.lay_out(unet)
        self.unet = unet
        encoder, decoder = UNetEncoder(unet), UNetDecoder(unet)
        self.num_skips = decoder.num_skips
        self.cross_attentions = (encoder.cross_attentions, decoder.cross_attentions)
        halves = (acceleration.apply(encoder), acceleration.apply(decoder))
        graphs = acceleration.cuda_graphs
        self.encode, self.decode = (make_replay(replay, half, cuda_graphs=graphs) for half in halves)
        # Made of these halves' own layers, so that there are no second copies of weights.
        self.shallow = ShallowUNet(*halves, replay, graphs) if with_shallow_path else None
        self._packed = [PackedCopies(half) for half in halves]
        self._quantized = [QuantizedCopies(half) for half in halves]

    def refresh(self) -> None:
        """Take note of weights that were patched or restored. No lane may compute meanwhile."""
        for rounded in self._quantized:
            rounded.renew()
        renewed = [copies.renew() for copies in self._packed]
        if not any(renewed):
            return
        for replay in (self.encode, self.decode, *(self.shallow.replays if self.shallow else ())):
            if isinstance(replay, TracedReplay):
                replay.rebind()


class ServedControlNet:
    """A stock ControlNet that can be replayed; make one a model and device, and keep it.

    Args:
        controlnet: The stock model.
        replay: How it is run.
        graphs: Traced graphs to share with other ControlNets of its architecture; None shares none.
        acceleration: What it is made of.
        with_shallow_path: Split it for a step cache too.

    Attributes:
        controlnet: The stock model, whose weights must not change any more.
        compute: `ControlNetTrunk`, replayed.
        compute_shallow: `ShallowTrunk`, replayed; None without a step cache.
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
        acceleration: Acceleration = PLAIN,
        with_shallow_path: bool = False,
    ) -> None:
        acceleration.lay_out(controlnet)
        self.controlnet = controlnet
        trunk = ControlNetTrunk(controlnet)
        settings = _settings_of(controlnet)
        computed = acceleration.apply(trunk, fixed=True)
        parts = (computed, *((ShallowTrunk(computed),) if with_shallow_path else ()))
        replays = [
            make_replay(replay, part, graphs, settings, cuda_graphs=acceleration.cuda_graphs)
            for part in parts
        ]
        self.compute = replays[0]
        self.compute_shallow = replays[1] if with_shallow_path else None
        self.extra_bytes = packed_bytes(computed) + QuantizedCopies(computed).num_bytes
        self.cross_attentions = (trunk.cross_attentions,)


def _settings_of(controlnet: ControlNetModel) -> str:
    """Return what tells trunks apart: the config without origins and the control image's embedding."""
    settings = {key: value for key, value in controlnet.config.items() if not key.startswith("_")}
    for key in _OF_CONTROL_IMAGE:
        settings.pop(key, None)
    return json.dumps(settings, sort_keys=True)
