"""Owns the random-weight presets: SDXL's exact topology, thin for any machine and full size for GPUs.

Shapes are those of SDXL 1.0 (arXiv 2307.01952); the thin preset divides its widths by ten and keeps every
layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swiftdiff.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from diffusers import ControlNetModel, StableDiffusionXLPipeline
    from torch import nn

# The embedded model's adapters have these ids too, so that one trace can be replayed with either model.
_CONTROLNETS = ("depth", "edges", "layout")
_LARGE_PARAMETERS = 1_000_000_000
_LORAS = ("blueprint", "gold", "neon", "night", "pixel", "sketch", "stripes", "watercolour")
_WORDS = (
    "a an the of on in at and with to above below left right next near photo picture painting portrait "
    "drawing sketch small large big tiny red green blue yellow orange purple pink black white grey "
    "brown circle square triangle star cross ring heart diamond background sand sky sea sun moon night "
    "day city street house tree flower mountain river forest cat dog horse bird fish car boat man woman "
    "person face light dark soft bright colourful detailed high quality style neon watercolour "
    "blueprint pixel stripes gold"
)


@dataclass(frozen=True)
class Preset:
    """Widths of one preset; depths and layer names are SDXL's.

    Attributes:
        name: How configs name it.
        native_size: Side of its pictures in pixels; latents are an eighth of it.
        unet_channels: Channels of the UNet's three levels.
        unet_heads: Attention heads of the levels; the first has no attention.
        time_channels: Width of each embedded size and crop number.
        text_widths: Hidden sizes of the two text encoders; their sum is what the UNet attends to.
        text_heads: Their attention heads.
        vocabulary_size: Rows of the token embeddings; None is as many as the tokenizer needs.
        vae_channels: Channels of the autoencoder's four levels.
        vae_groups: Groups of its normalization.
        hint_channels: Channels through which a ControlNet reads its picture.
        parameters: Number of all parameters of the pipeline.
        controlnets: Ids of the ControlNets of its family.
        loras: Ids of the LoRAs of its family.
    """

    name: str
    native_size: int
    unet_channels: tuple[int, int, int]
    unet_heads: tuple[int, int, int]
    time_channels: int
    text_widths: tuple[int, int]
    text_heads: tuple[int, int]
    vocabulary_size: int | None
    vae_channels: tuple[int, int, int, int]
    vae_groups: int
    hint_channels: tuple[int, int, int, int]
    parameters: int
    controlnets: tuple[str, ...] = _CONTROLNETS
    loras: tuple[str, ...] = _LORAS

    @property
    def is_large(self) -> bool:
        """Whether its weights are made where they are used, and not kept on disk unless asked for."""
        return self.parameters > _LARGE_PARAMETERS


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="sdxl-thin",
            native_size=256,
            unet_channels=(32, 64, 128),
            unet_heads=(1, 2, 4),
            time_channels=32,
            text_widths=(48, 80),
            text_heads=(3, 5),
            vocabulary_size=None,
            vae_channels=(16, 32, 64, 64),
            vae_groups=8,
            hint_channels=(8, 16, 24, 32),
            parameters=28_804_411,
        ),
        Preset(
            name="sdxl",
            native_size=1024,
            unet_channels=(320, 640, 1280),
            unet_heads=(5, 10, 20),
            time_channels=256,
            text_widths=(768, 1280),
            text_heads=(12, 20),
            vocabulary_size=49408,
            vae_channels=(128, 256, 512, 512),
            vae_groups=32,
            hint_channels=(16, 32, 96, 256),
            parameters=3_468_837_867,
        ),
    )
}


def find_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        ModelError: There is none of that name.
    """
    if name not in PRESETS:
        raise ModelError.for_field("preset", name, " or ".join(PRESETS))
    return PRESETS[name]


def preset_of_shapes(unet_config: Mapping[str, Any]) -> str | None:
    """Return the preset whose adapters fit a UNet, by the UNet's config; None if no preset's do."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in unet_config.items()}
    for preset in PRESETS.values():
        own = _unet_config(preset).items()
        if all(given.get(key) == value for key, value in own if key != "sample_size"):
            return preset.name
    return None


def build_preset(
    name: str,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> StableDiffusionXLPipeline:
    """Build a pipeline of random weights; nothing is read from disk or network.

    Args:
        name: ``sdxl-thin`` or ``sdxl``.
        seed: Chooses the weights; on one kind of device the same seed gives the same weights.
        device: Where the weights are made; ``meta`` gives shapes only and costs nothing.
        dtype: Type of the weights; None is float32.

    Raises:
        ModelError: There is no preset of that name.
    """
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    from swiftdiff.models import random_weights as weights
    from swiftdiff.models.tokenizer import clip_tokenizer

    preset = find_preset(name)
    tokenizers = [
        clip_tokenizer(_WORDS.split(), max_length=77, pad_token=pad) for pad in ("<|endoftext|>", "!")
    ]
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "unet": _unet(preset),
            "vae": _vae(preset),
            "text_encoder": _text_encoder(preset, 0, tokenizers[0]),
            "text_encoder_2": _text_encoder(preset, 1, tokenizers[1]),
        }
    gains = {"unet": weights.UNET_GAINS, "vae": weights.VAE_GAINS}
    for component, module in modules.items():
        own_gains = gains.get(component, weights.TEXT_ENCODER_GAINS)
        _allocate(module, component, own_gains, seed=seed, device=device, dtype=dtype)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    pipeline = StableDiffusionXLPipeline(
        **modules,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_preset_controlnet(
    name: str,
    controlnet: str,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> ControlNetModel:
    """Build a ControlNet that fits a preset.

    Args:
        name: ``sdxl-thin`` or ``sdxl``.
        controlnet: Any name; each gives other weights.
        seed: As in `build_preset`.
        device: As in `build_preset`.
        dtype: As in `build_preset`.

    Raises:
        ModelError: There is no preset of that name.
    """
    import torch
    from diffusers import ControlNetModel

    from swiftdiff.models.random_weights import CONTROLNET_GAINS

    preset = find_preset(name)
    config = {key: value for key, value in _unet_config(preset).items() if key not in _UNET_ONLY}
    with torch.device("meta"):
        module = ControlNetModel(**config, conditioning_embedding_out_channels=preset.hint_channels)
    _allocate(module, f"controlnet/{controlnet}", CONTROLNET_GAINS, seed=seed, device=device, dtype=dtype)
    return module


_UNET_ONLY = ("sample_size", "out_channels", "up_block_types")


def _unet_config(preset: Preset) -> dict[str, Any]:
    return {
        "sample_size": preset.native_size // 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": preset.unet_channels,
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": preset.unet_heads,  # diffusers' historic name for the number of heads
        "cross_attention_dim": sum(preset.text_widths),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": preset.time_channels,
        "projection_class_embeddings_input_dim": preset.text_widths[1] + 6 * preset.time_channels,
        "use_linear_projection": True,
    }


def _unet(preset: Preset) -> nn.Module:
    from diffusers import UNet2DConditionModel

    unet: nn.Module = UNet2DConditionModel(**_unet_config(preset))
    return unet


def _vae(preset: Preset) -> nn.Module:
    from diffusers import AutoencoderKL

    vae: nn.Module = AutoencoderKL(
        block_out_channels=preset.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=preset.vae_groups,
        sample_size=preset.native_size,
        scaling_factor=0.13025,
    )
    return vae


def _text_encoder(preset: Preset, index: int, tokenizer: Any) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = preset.text_widths[index]
    config = CLIPTextConfig(
        vocab_size=preset.vocabulary_size or len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=(12, 32)[index],
        num_attention_heads=preset.text_heads[index],
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=("quick_gelu", "gelu")[index],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder: nn.Module = (CLIPTextModel, CLIPTextModelWithProjection)[index](config)
    return encoder


def _allocate(
    module: nn.Module,
    component: str,
    gains: dict[str, float],
    *,
    seed: int,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> None:
    """Give a module built on ``meta`` memory and random weights, unless it shall stay there."""
    import torch
    from torch import nn

    from swiftdiff.models.random_weights import fill_random, restore_buffers

    module.eval()
    nn.Module.to(module, dtype=dtype or torch.float32)  # diffusers' own `to` warns about an empty list
    if torch.device(device).type == "meta":
        return
    module.to_empty(device=device)
    restore_buffers(module)
    fill_random(module, seed=seed, component=component, gains=gains)
