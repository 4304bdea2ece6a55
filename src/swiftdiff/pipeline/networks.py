"""Owns what stays of a network between requests: its halves, and the graphs captured of them."""

from __future__ import annotations

import json

from diffusers import ControlNetModel, UNet2DConditionModel

from swiftdiff.pipeline.graphs import Replay, ReplayKind, TracedGraphs, TracedReplay, make_replay
from swiftdiff.pipeline.kernels import PackedCopies, packed_bytes, tuned
from swiftdiff.pipeline.shallow_path import DeepDecoder, ShallowDecoder, ShallowEncoder, ShallowTrunk
from swiftdiff.pipeline.split_unet import ControlNetTrunk, UNetDecoder, UNetEncoder

_OF_CONTROL_IMAGE = ("conditioning_embedding_out_channels", "controlnet_conditioning_channel_order")


class ShallowUNet:
    """The parts of a UNet for steps that keep deep features or use them.

    Args:
        encoder: The encoder half.
        decoder: The decoder half.
        replay: How the parts are run.

    Attributes:
        encode: `ShallowEncoder`, replayed.
        decode_deep: `DeepDecoder`, replayed.
        decode: `ShallowDecoder`, replayed.
        num_skips: Skip connections that ``encode`` returns.

    Raises:
        ModelError: The UNet has nothing deep.
    """

    def __init__(self, encoder: UNetEncoder, decoder: UNetDecoder, replay: ReplayKind) -> None:
        parts = (ShallowEncoder(encoder), DeepDecoder(decoder), ShallowDecoder(decoder))
        self.encode, self.decode_deep, self.decode = (make_replay(replay, part) for part in parts)
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
        tune: Run them by `kernels.tuned`.
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
        tune: bool = False,
        with_shallow_path: bool = False,
    ) -> None:
        self.unet = unet
        encoder, decoder = UNetEncoder(unet), UNetDecoder(unet)
        self.num_skips = decoder.num_skips
        self.cross_attentions = (encoder.cross_attentions, decoder.cross_attentions)
        halves = (tuned(encoder), tuned(decoder)) if tune else (encoder, decoder)
        self.encode, self.decode = (make_replay(replay, half) for half in halves)
        # Made of the tuned halves' own layers, so that these have no second copies of weights.
        self.shallow = ShallowUNet(*halves, replay) if with_shallow_path else None
        self._copies = [PackedCopies(half) for half in halves]

    def refresh(self) -> None:
        """Take note of weights that were patched or restored. No lane may compute meanwhile."""
        renewed = [copies.renew() for copies in self._copies]
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
        tune: Run it by `kernels.tuned`.
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
        tune: bool = False,
        with_shallow_path: bool = False,
    ) -> None:
        self.controlnet = controlnet
        trunk = ControlNetTrunk(controlnet)
        settings = _settings_of(controlnet)
        computed = tuned(trunk, fixed=True) if tune else trunk
        self.compute = make_replay(replay, computed, graphs, settings)
        self.compute_shallow = (
            make_replay(replay, ShallowTrunk(computed), graphs, settings) if with_shallow_path else None
        )
        self.extra_bytes = packed_bytes(computed)
        self.cross_attentions = (trunk.cross_attentions,)


def _settings_of(controlnet: ControlNetModel) -> str:
    """Return what tells trunks apart: the config without origins and the control image's embedding."""
    settings = {key: value for key, value in controlnet.config.items() if not key.startswith("_")}
    for key in _OF_CONTROL_IMAGE:
        settings.pop(key, None)
    return json.dumps(settings, sort_keys=True)
