"""A world of random weights that runs in milliseconds: bounce's prompts and sizes, two thin layers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from swiftdiff.world.bounce.prompts import NUM_FEATURES, BouncePrompts
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.loading import SETTINGS_NAME, WorldModel, WorldSettings

SETTINGS = WorldSettings(
    frames_per_block=3,
    latent_channels=4,
    latent_height=8,
    latent_width=8,
    fps=12.0,
    prompt_encoder="bounce",
    resting_prompt="none",
)


def build_tiny_world(seed: int = 0) -> WorldModel:
    """Return a world with weights of this seed, in float32 on the CPU; torch's own seed stays as it is."""
    transformer, vae = build_tiny_transformer(seed), build_tiny_autoencoder(seed)
    return WorldModel("tiny", CausalWan(transformer), vae, BouncePrompts(), SETTINGS)


def save_tiny_world(folder: Path, seed: int = 0) -> Path:
    """Write `build_tiny_world` of a seed as a folder that `load_world` reads; return the folder."""
    build_tiny_transformer(seed).save_pretrained(folder / "transformer")
    build_tiny_autoencoder(seed).save_pretrained(folder / "vae")
    (folder / SETTINGS_NAME).write_text(SETTINGS.model_dump_json(indent=2), encoding="utf-8")
    return folder


def build_tiny_transformer(seed: int = 0) -> WanTransformer3DModel:
    """Return a stock transformer, 64 wide and two layers deep, that heeds its past and its prompt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=32,
            in_channels=SETTINGS.latent_channels,
            out_channels=SETTINGS.latent_channels,
            text_dim=NUM_FEATURES,
            freq_dim=32,
            ffn_dim=96,
            num_layers=2,
        )
    with torch.no_grad():
        for block in transformer.blocks:
            block.scale_shift_table[:, [2, 5]] = 1  # stock's random gates let next to nothing through
    return transformer.eval().requires_grad_(False)


def build_tiny_autoencoder(seed: int = 0) -> AutoencoderKLWan:
    """Return a stock autoencoder, 4x in space, 1x in time, whose latents are far from standard."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=SETTINGS.latent_channels,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, False],
            latents_mean=[0.3, -0.2, 0.1, 0.0],
            latents_std=[1.5, 0.7, 2.0, 1.0],
            scale_factor_temporal=1,
            scale_factor_spatial=4,
        )
    return vae.eval().requires_grad_(False)
