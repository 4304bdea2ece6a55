"""Widths and depths of the shapes family, all in stock classes, and why they are what they are.

Latents of 32x32 (a 4x autoencoder on 128x128 pictures) because two guidance halves or lanes spread over
cores better there than at 16x16. Three levels of 64, 128 and 160 channels keep a guided step of the stock
UNet under 50 ms on two cores, and the base with three ControlNets under 50 MB in half precision.
"""

from __future__ import annotations

from typing import Final

import torch
from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

NATIVE_SIDE: Final = 128
LATENT_CHANNELS: Final = 4
VAE_FACTOR: Final = 4
MAX_TOKENS: Final = 32
_WIDTHS: Final = (128, 192)  # of the two text encoders; the UNet attends to both side by side
_TIME_ID_WIDTH: Final = 32

CONTROLNET_KINDS: Final = ("edges", "depth", "layout")


def build_autoencoder() -> AutoencoderKL:
    """The 4x autoencoder, purely convolutional so that it trains on small pictures."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=NATIVE_SIDE,
        mid_block_add_attention=False,
        scaling_factor=1.0,  # see autoencoder.standardise
        force_upcast=False,
    )


def build_unet() -> UNet2DConditionModel:
    """SDXL's UNet, thin: text_time embeddings, no attention at the finest level."""
    return UNet2DConditionModel(
        sample_size=NATIVE_SIDE // VAE_FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 160),
        layers_per_block=1,
        transformer_layers_per_block=[1, 1, 1],
        attention_head_dim=[2, 4, 5],
        norm_num_groups=16,
        cross_attention_dim=sum(_WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=_WIDTHS[1] + 6 * _TIME_ID_WIDTH,
    )


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that begins as a copy of the UNet's encoder; its embedding halves the image twice."""
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(16, 32, 64), load_weights_from_unet=True
    )


def build_text_encoders(
    vocab_size: int, bos_token_id: int, eos_token_id: int, pad_token_id: int
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two CLIP text encoders; the UNet sees their penultimate layers and the second's pooled vector."""

    def config(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=_WIDTHS[1],
            num_hidden_layers=4,
            num_attention_heads=width // 32,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
        )

    return CLIPTextModel(config(_WIDTHS[0])), CLIPTextModelWithProjection(config(_WIDTHS[1]))


def build_scheduler() -> EulerDiscreteScheduler:
    """Velocity prediction; noise strong enough at the last timestep to hide a picture's mean colour.

    With SDXL's own end of 0.012 a 32x32 latent's mean survives all 1,000 steps of noise (Lin et al. 2023,
    arXiv 2305.08891), and backgrounds drift to grey.
    """
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def time_ids(side: int, batch_size: int) -> torch.Tensor:
    """SDXL's size conditioning, [batch, 6]: original size, crop corner, target size."""
    return torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).repeat(batch_size, 1)
