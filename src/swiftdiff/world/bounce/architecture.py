"""Widths and depths of bounce, all in stock classes, and what its weights begin as.

The autoencoder is small enough to leave a block's time to the transformer; latents of 8x8 in patches of 2x2
give 16 tokens a frame and 48 a block. The transformer has 1.75 million parameters.
"""

from __future__ import annotations

from typing import Final

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import nn

from .prompts import NUM_FEATURES
from .scene import SIDE

LATENT_CHANNELS: Final = 4
VAE_FACTOR: Final = 4
LATENT_SIDE: Final = SIDE // VAE_FACTOR
FPS: Final = 12.0
_LAYERS: Final = 6
_HEADS: Final = 4
_HEAD_DIM: Final = 32
_FIXED_LOGVAR: Final = -30.0


def build_autoencoder() -> AutoencoderKLWan:
    """Return the 4x autoencoder with fresh weights from torch's global seed.

    It shortens no time, and begins with zeros for all but the present frame in its causal kernels: trained
    on single pictures it stays so, and a frame's latents depend on that frame alone. Its encoder says one
    value and no spread.
    """
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, False],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=1,
        scale_factor_spatial=VAE_FACTOR,
    )
    with torch.no_grad():
        for layer in vae.modules():
            if isinstance(layer, WanCausalConv3d):
                layer.weight[:, :, :-1] = 0
                # stock's own size is for kernels three times as large, and leaves little of what goes in
                present = torch.empty_like(layer.weight[:, :, -1])
                layer.weight[:, :, -1] = nn.init.kaiming_uniform_(present, nonlinearity="linear")
            elif isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = _FIXED_LOGVAR
    return vae


def build_transformer() -> WanTransformer3DModel:
    """Return the transformer with fresh weights from torch's global seed.

    Each layer begins as a plain pre-norm layer that the timestep does not modulate yet: stock's own random
    gates let little through at first.
    """
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=NUM_FEATURES,
        freq_dim=64,
        ffn_dim=4 * _HEADS * _HEAD_DIM,
        num_layers=_LAYERS,
        rope_max_seq_len=1024,
    )
    with torch.no_grad():
        for layer in transformer.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        nn.init.xavier_uniform_(transformer.patch_embedding.weight.flatten(1))
        # Flow is mostly the noise that came in, and a layer norm stands before the output: what is large and
        # the same in all tokens keeps the norm from hanging on the noise.
        nn.init.normal_(transformer.patch_embedding.bias)
        nn.init.zeros_(transformer.condition_embedder.time_proj.weight)
        nn.init.zeros_(transformer.proj_out.weight)
        transformer.scale_shift_table.zero_()
        for block in transformer.blocks:
            block.scale_shift_table.zero_()
            block.scale_shift_table[:, [2, 5]] = 1  # the gates of attention and feed-forward
            for out in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
                out.weight /= (2 * _LAYERS) ** 0.5
    return transformer
