"""Splits stock networks at their seams: the UNet before its decoder, the ControlNet after its control image.

The halves are made of the stock network's own submodules: weights are shared, nothing is copied or changed.
The seam is where `UNet2DConditionModel.forward` first reads what ControlNets add: its down and middle blocks
do not, so they run at the same time as the ControlNets. Together with `prompt_attention` and `shallow_path`
this is all that depends on the insides of diffusers; parity tests pin them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from swiftdiff.errors import AdapterError, ModelError
from swiftdiff.pipeline.prompt_attention import PromptKeysValues, reuse_prompt

_BLOCKS = (
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UNetMidBlock2DCrossAttn",
    "CrossAttnUpBlock2D",
    "UpBlock2D",
)
_MUST_BE_UNSET = (
    "center_input_sample",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)


class Prompt(NamedTuple):
    """An encoded prompt, one row a picture (and twice as many where both guidance halves share a batch).

    Attributes:
        embeddings: [rows, tokens, width].
        pooled: [rows, width]; None for models without (SD 1.5).
        time_ids: SDXL's sizes and crops, [rows, 6]; None for models without.
    """

    embeddings: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None


class UNetEncoder(nn.Module):
    """The UNet up to its seam: first convolution, down blocks, middle block.

    Raises:
        ModelError: The UNet is of a kind that is not supported.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        check_supported(unet)
        self.conv_in = unet.conv_in
        self.down_blocks = unet.down_blocks
        self.mid_block = unet.mid_block
        self.cross_attentions = reuse_prompt(self)

    def forward(
        self, sample: torch.Tensor, time: torch.Tensor, *prompt: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the middle block's output and then the skip connections, shallowest first.

        Args:
            sample: Scaled latents, [rows, channels, height, width].
            time: What `embed_time` returned.
            prompt: The embeddings, or keys and values of this half's layers.
        """
        states = as_states(prompt)
        hidden, skips = run_down(self.down_blocks, self.conv_in(sample), time, states)
        return (self.mid_block(hidden, time, encoder_hidden_states=states), *skips)


class UNetDecoder(nn.Module):
    """The UNet from its seam on: up blocks and output layers.

    Raises:
        ModelError: The UNet is of a kind that is not supported.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        check_supported(unet)
        self.up_blocks = unet.up_blocks
        self.conv_norm_out = unet.conv_norm_out
        self.conv_act = unet.conv_act
        self.conv_out = unet.conv_out
        self.num_skips = sum(len(block.resnets) for block in unet.up_blocks)
        self.upsampling = 2**unet.num_upsamplers
        self.cross_attentions = reuse_prompt(self)

    def forward(
        self, hidden: torch.Tensor, time: torch.Tensor, *skips_and_prompt: torch.Tensor
    ) -> torch.Tensor:
        """Return the predicted noise, [rows, channels, height, width].

        Args:
            hidden: The middle block's output, ControlNets' residual added.
            time: What `embed_time` returned.
            skips_and_prompt: The skip connections, residuals added; then as for `UNetEncoder`.
        """
        skips, prompt = skips_and_prompt[: self.num_skips], skips_and_prompt[self.num_skips :]
        hidden = run_up(self.up_blocks, hidden, time, skips, as_states(prompt), upsampling=self.upsampling)
        if self.conv_norm_out:
            hidden = self.conv_act(self.conv_norm_out(hidden))
        output: torch.Tensor = self.conv_out(hidden)
        return output


class ControlNetTrunk(nn.Module):
    """A ControlNet without the embedding of its control image, which is the same at every step.

    Raises:
        AdapterError: The ControlNet is of a kind that is not supported.
    """

    def __init__(self, controlnet: ControlNetModel) -> None:
        super().__init__()
        try:
            check_supported(controlnet)
        except ModelError as error:
            raise AdapterError(error.message) from error
        self.conv_in = controlnet.conv_in
        self.down_blocks = controlnet.down_blocks
        self.mid_block = controlnet.mid_block
        self.controlnet_down_blocks = controlnet.controlnet_down_blocks
        self.controlnet_mid_block = controlnet.controlnet_mid_block
        self.cross_attentions = reuse_prompt(self)

    def forward(
        self, sample: torch.Tensor, time: torch.Tensor, hint: torch.Tensor, *prompt: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the middle block's residual and then those of the skip connections, before scaling.

        Args:
            sample: Scaled latents, [rows, channels, height, width].
            time: What `embed_time` returned.
            hint: What `embed_hint` returned.
            prompt: As for `UNetEncoder`.
        """
        states = as_states(prompt)
        hidden, skips = run_down(self.down_blocks, self.conv_in(sample) + hint, time, states)
        hidden = self.mid_block(hidden, time, encoder_hidden_states=states)
        convolutions = self.controlnet_down_blocks
        residuals = [convolution(skip) for convolution, skip in zip(convolutions, skips, strict=True)]
        return (self.controlnet_mid_block(hidden), *residuals)


def embed_time(
    network: Any, timestep: torch.Tensor, prompt: Prompt, added: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what a UNet or ControlNet makes of timestep, pooled prompt and sizes, [rows, width].

    Args:
        network: The stock network.
        timestep: Of the network's training, no dimensions.
        prompt: Of the rows.
        added: What `embed_added` returned for the prompt; None computes it.
    """
    # The UNet's own methods; they use no more of `self` than ControlNets have too. Of `sample` they want
    # rows, type and device, which the embeddings share.
    stock = UNet2DConditionModel
    embedded = network.time_embedding(stock.get_time_embed(network, prompt.embeddings, timestep), None)
    if added is None:
        added = embed_added(network, prompt)
    if added is not None:
        embedded = embedded + added
    activation = getattr(network, "time_embed_act", None)
    result: torch.Tensor = embedded if activation is None else activation(embedded)
    return result


def embed_added(network: Any, prompt: Prompt) -> torch.Tensor | None:
    """Return the part of `embed_time` that is the same at every step; None for models without (SD 1.5)."""
    conditions = {"text_embeds": prompt.pooled, "time_ids": prompt.time_ids}
    # Of the timestep's embedding it wants the type, which the prompt's shares.
    added: torch.Tensor | None = UNet2DConditionModel.get_aug_embed(
        network, prompt.embeddings, prompt.embeddings, conditions
    )
    return added


def embed_hint(controlnet: ControlNetModel, image: torch.Tensor) -> torch.Tensor:
    """Return a ControlNet's embedding of its control image.

    Args:
        image: [rows, 3, height, width] from 0 to 1, eight times the latents' size.
    """
    if controlnet.config.controlnet_conditioning_channel_order == "bgr":
        image = image.flip(1)
    hint: torch.Tensor = controlnet.controlnet_cond_embedding(image)
    return hint


def check_supported(network: Any) -> None:
    """Check that a UNet or ControlNet has only what SDXL's or SD 1.5's have.

    Raises:
        ModelError: It has more; the message names the setting.
    """
    config = network.config
    for field in _MUST_BE_UNSET:
        if config.get(field):
            raise ModelError.for_field(field, config[field], "unset", where=type(network).__name__)
    if config.addition_embed_type not in (None, "text_time"):
        raise ModelError.for_field("addition_embed_type", config.addition_embed_type, "text_time or unset")
    if config.get("global_pool_conditions"):
        raise ModelError.for_field("global_pool_conditions", True, "False", where="ControlNet")
    blocks = (*network.down_blocks, network.mid_block, *getattr(network, "up_blocks", ()))
    for block in blocks:
        if type(block).__name__ not in _BLOCKS:
            raise ModelError.for_field(
                "block type", type(block).__name__, ", ".join(_BLOCKS), where=type(network).__name__
            )


def run_down(
    blocks: Any, hidden: torch.Tensor, time: torch.Tensor, states: Any
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run down blocks; return the output and the skip connections, what came in first."""
    skips = [hidden]
    for block in blocks:
        hidden, own = block(hidden_states=hidden, temb=time, **_attended(block, states))
        skips.extend(own)
    return hidden, skips


def run_up(
    blocks: Any,
    hidden: torch.Tensor,
    time: torch.Tensor,
    skips: Sequence[torch.Tensor],
    states: Any,
    *,
    upsampling: int,
) -> torch.Tensor:
    """Run up blocks and return the output.

    Args:
        blocks: The deepest first.
        hidden: What goes into the first.
        time: What `embed_time` returned.
        skips: The shallowest first; from the last on they are used up.
        states: The prompt.
        upsampling: Of the whole UNet, by which its latents' sides should divide.
    """
    # Sides that do not divide evenly were rounded on the way down: say what each upsampling must give.
    is_odd = any(side % upsampling for side in skips[0].shape[-2:])
    for block in blocks:
        own, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        hidden = block(
            hidden_states=hidden,
            temb=time,
            res_hidden_states_tuple=own,
            upsample_size=skips[-1].shape[2:] if is_odd and skips else None,
            **_attended(block, states),
        )
    return hidden


def as_states(prompt: Sequence[torch.Tensor]) -> torch.Tensor | PromptKeysValues:
    """Return the prompt as blocks take it: embeddings, or keys and values if there are several tensors."""
    return prompt[0] if len(prompt) == 1 else PromptKeysValues(prompt)


def _attended(block: Any, states: Any) -> dict[str, Any]:
    return {"encoder_hidden_states": states} if getattr(block, "has_cross_attention", False) else {}
