"""Splits the halves of networks once more: the outermost blocks run alone where deep features are kept.

DeepCache (arXiv 2312.00858) found that what a UNet computes deep down changes little from step to step. Here
the shallow path is the first down block and the last up block; what goes into the latter from below is kept.
The full path in these parts is the stock network's, operation for operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from swiftdiff.errors import ModelError
from swiftdiff.pipeline.split_unet import (
    ControlNetTrunk,
    UNetDecoder,
    UNetEncoder,
    as_states,
    run_down,
    run_up,
)


class ShallowEncoder(nn.Module):
    """The encoder half's part of the shallow path.

    Args:
        encoder: The half, whose parts it uses.
    """

    def __init__(self, encoder: UNetEncoder) -> None:
        super().__init__()
        self.conv_in = encoder.conv_in
        self.down_blocks = encoder.down_blocks[:1]

    def forward(
        self, sample: torch.Tensor, time: torch.Tensor, *prompt: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the skip connections that `ShallowDecoder` reads; arguments as for `UNetEncoder`."""
        return _first_skips(self, self.conv_in(sample), time, prompt)


class DeepDecoder(nn.Module):
    """The decoder half without its part of the shallow path.

    Args:
        decoder: The half, whose parts it uses.

    Raises:
        ModelError: It has nothing deep: a single block.
    """

    def __init__(self, decoder: UNetDecoder) -> None:
        super().__init__()
        if len(decoder.up_blocks) < 2:
            raise ModelError(
                "this model's UNet has a single up block: no deep features that step_cache could keep"
            )
        self.up_blocks = decoder.up_blocks[:-1]
        self.num_skips = decoder.num_skips
        self._upsampling = decoder.upsampling

    def forward(
        self, hidden: torch.Tensor, time: torch.Tensor, *skips_and_prompt: torch.Tensor
    ) -> torch.Tensor:
        """Return the features that go into the last up block; arguments as for `UNetDecoder`."""
        skips, prompt = skips_and_prompt[: self.num_skips], skips_and_prompt[self.num_skips :]
        return run_up(self.up_blocks, hidden, time, skips, as_states(prompt), upsampling=self._upsampling)


class ShallowDecoder(nn.Module):
    """The decoder half's part of the shallow path.

    Args:
        decoder: The half, whose parts it uses.
    """

    def __init__(self, decoder: UNetDecoder) -> None:
        super().__init__()
        self.up_blocks = decoder.up_blocks[-1:]
        self.conv_norm_out = decoder.conv_norm_out
        self.conv_act = decoder.conv_act
        self.conv_out = decoder.conv_out
        self.num_skips = len(decoder.up_blocks[-1].resnets)
        self._upsampling = decoder.upsampling

    def forward(
        self, deep: torch.Tensor, time: torch.Tensor, *skips_and_prompt: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted noise, [rows, channels, height, width].

        Args:
            deep: What `DeepDecoder` returned, at this step or an earlier one.
            time: What `embed_time` returned.
            skips_and_prompt: What `ShallowEncoder` returned, residuals added; then as for `UNetDecoder`.
        """
        skips, prompt = skips_and_prompt[: self.num_skips], skips_and_prompt[self.num_skips :]
        hidden = run_up(self.up_blocks, deep, time, skips, as_states(prompt), upsampling=self._upsampling)
        if self.conv_norm_out:
            hidden = self.conv_act(self.conv_norm_out(hidden))
        output: torch.Tensor = self.conv_out(hidden)
        return output


class ShallowTrunk(nn.Module):
    """What a ControlNet adds to the shallow path, which needs nothing of what it computes deeper down.

    Args:
        trunk: The ControlNet, whose parts it uses.
    """

    def __init__(self, trunk: ControlNetTrunk) -> None:
        super().__init__()
        self.conv_in = trunk.conv_in
        self.down_blocks = trunk.down_blocks[:1]
        self.controlnet_down_blocks = trunk.controlnet_down_blocks[: _num_first_skips(trunk)]

    def forward(
        self, sample: torch.Tensor, time: torch.Tensor, hint: torch.Tensor, *prompt: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the residuals of `ShallowEncoder`'s skip connections; arguments as for `ControlNetTrunk`."""
        skips = _first_skips(self, self.conv_in(sample) + hint, time, prompt)
        convolutions = self.controlnet_down_blocks
        return tuple(convolution(skip) for convolution, skip in zip(convolutions, skips, strict=True))


def _first_skips(
    part: Any, hidden: torch.Tensor, time: torch.Tensor, prompt: Any
) -> tuple[torch.Tensor, ...]:
    _, skips = run_down(part.down_blocks, hidden, time, as_states(prompt))
    return tuple(skips[: _num_first_skips(part)])  # the one after them is the next block's: it is smaller


def _num_first_skips(part: Any) -> int:
    return 1 + len(part.down_blocks[0].resnets)
