"""Counts a request's arithmetic, from the shapes of a model's layers alone: nothing is computed.

What is counted is stock's work: every step guided, nothing computed once and kept. Matrix products, attention
and convolutions count, a multiplication and an addition as two; text encoders do not (a step's fiftieth).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.registry import ModelSource, resolve_model

_TOKENS = 77
_GUIDED = 2  # halves of guidance


@dataclass(frozen=True)
class Work:
    """Operations in units of 10^12.

    Attributes:
        unet_step: A guided step of the UNet.
        controlnet_step: A guided step of one ControlNet.
        vae_decode: Decoding one picture.
    """

    unet_step: float
    controlnet_step: float
    vae_decode: float

    def request(self, setting: AdapterSetting, steps: int) -> float:
        """Return the work of one picture; LoRAs add none that is worth counting."""
        step = self.unet_step + setting.num_controlnets * self.controlnet_step
        return steps * step + self.vae_decode


def count_work(model: str, side: int) -> Work | None:
    """Count a model's work.

    Args:
        model: As configs name it.
        side: Of the picture, in pixels.

    Returns:
        The work; None for single files and hub ids, whose layers are not known without loading them.

    Raises:
        ModelError: There is no such model.
    """
    import torch

    with quiet_libraries():
        networks = _networks(resolve_model(model))
    if networks is None:
        return None
    unet, controlnet, vae = networks
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    latents = side // factor
    meta: dict[str, Any] = {"device": "meta", "dtype": torch.float32}
    attended = unet.config.cross_attention_dim
    given = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    conditions: dict[str, Any] = {
        "timestep": torch.ones((), **meta),
        "encoder_hidden_states": torch.empty(_GUIDED, _TOKENS, attended, **meta),
        "added_cond_kwargs": {
            "text_embeds": torch.empty(_GUIDED, given, **meta),
            "time_ids": torch.empty(_GUIDED, 6, **meta),
        },
    }
    noise = torch.empty(_GUIDED, unet.config.in_channels, latents, latents, **meta)
    picture = torch.empty(_GUIDED, 3, side, side, **meta)
    latent = torch.empty(1, vae.config.latent_channels, latents, latents, **meta)
    return Work(
        _count(lambda: unet(noise, **conditions)),
        _count(lambda: controlnet(noise, controlnet_cond=picture, **conditions)),
        _count(lambda: vae.decode(latent)),
    )


def _count(compute: Any) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute()
    return float(counter.get_total_flops()) / 1e12


def _networks(source: ModelSource) -> tuple[Any, Any, Any] | None:
    """Return UNet, a ControlNet that fits it, and VAE, without weights."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    from swiftdiff.models.presets import build_preset, build_preset_controlnet

    if source.kind == "preset":
        pipe = build_preset(source.name, device="meta")
        return pipe.unet, build_preset_controlnet(source.name, "any", device="meta"), pipe.vae
    if source.path is None or not source.path.is_dir():
        return None
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source.path / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(source.path / "vae"))
        halvings = len(vae.config.block_out_channels)  # of the control image, to the latents' size
        controlnet = ControlNetModel.from_unet(
            unet,
            conditioning_embedding_out_channels=(16, 32, 96, 256)[:halvings],
            load_weights_from_unet=False,
        )
    return unet.eval(), controlnet.eval(), vae.eval()
