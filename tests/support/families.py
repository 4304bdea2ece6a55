"""Builds a tiny model family of random weights for tests: stock SDXL classes, 64×64 pictures.

The folder is laid out as the embedded family is: ``base/``, ``controlnets/<id>/`` and
``loras/<id>.safetensors``. Weights are random but scaled so that prompts, ControlNets and LoRAs visibly
change the picture.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers import StableDiffusionXLPipeline as Pipeline
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from swiftdiff.models.quiet import quiet_libraries

NATIVE_SIZE = 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer that knows single letters."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=24)


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=2 + 2 * len(LETTERS),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def build_unet() -> UNet2DConditionModel:
    """Return an SDXL-style UNet with 16×16 latents and a ``text_time`` embedding."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        cross_attention_dim=32,
        norm_num_groups=4,
    )


def build_base(seed: int = 0) -> Pipeline:
    """Return the family's pipeline, float32 on the CPU."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=NATIVE_SIZE,
    )
    return Pipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(_text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()).eval(),
        tokenizer=build_tokenizer(),
        tokenizer_2=build_tokenizer(),
        unet=build_unet().eval(),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )


def build_controlnet(unet: UNet2DConditionModel, seed: int) -> ControlNetModel:
    """Return a ControlNet whose output layers are random instead of zero, so that it acts."""
    torch.manual_seed(seed)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8))
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)
    torch.nn.init.normal_(controlnet.controlnet_cond_embedding.conv_out.weight, std=0.2)
    return controlnet.eval()


def random_lora(
    base: Pipeline, *, rank: int, seed: int, text_encoders: bool, conv: bool = False
) -> dict[str, torch.Tensor]:
    """Return a LoRA in diffusers' key format for the UNet's attention (and the text encoders')."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}

    def add(name: str, module: torch.nn.Module) -> None:
        down_shape: tuple[int, ...]
        if isinstance(module, torch.nn.Conv2d):
            down_shape = (rank, module.in_channels, *module.kernel_size)
            up_shape: tuple[int, ...] = (module.out_channels, rank, 1, 1)
        else:
            assert isinstance(module, torch.nn.Linear)
            down_shape, up_shape = (rank, module.in_features), (module.out_features, rank)
        weights[f"{name}.lora_A.weight"] = torch.randn(down_shape, generator=generator) * 0.3
        weights[f"{name}.lora_B.weight"] = torch.randn(up_shape, generator=generator) * 0.3

    for name, module in base.unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")) or (conv and name.endswith("conv1")):
            add(f"unet.{name}", module)
    if text_encoders:
        for part in ("text_encoder", "text_encoder_2"):
            for name, module in getattr(base, part).named_modules():
                if name.endswith(("q_proj", "v_proj", "out_proj", "fc1")):
                    add(f"{part}.{name}", module)
    return weights


def kohya_lora(base: Pipeline, *, rank: int, alpha: float, seed: int) -> dict[str, torch.Tensor]:
    """Return a LoRA in kohya's key format (``lora_unet_…``, ``lora_te1_…``) with alphas.

    Text encoders must include ``out_proj``: without it stock diffusers takes their attention keys for another
    format and drops them with no more than a warning.
    """
    weights: dict[str, torch.Tensor] = {}
    source = random_lora(base, rank=rank, seed=seed, text_encoders=True)
    for key, value in source.items():
        module, _, factor = key.rpartition(".weight")[0].rpartition(".")
        part, _, path = module.partition(".")
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
        if part != "unet" and not path.startswith("text_model."):
            path = f"text_model.{path}"
        name = f"{prefix}_{path.replace('.', '_')}"
        weights[f"{name}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = value
        weights[f"{name}.alpha"] = torch.tensor(alpha)
    return weights


def build_family(root: Path) -> Path:
    """Write the tiny family below ``root`` and return ``root``."""
    with quiet_libraries():
        return _build_family(root)


def _build_family(root: Path) -> Path:
    base = build_base()
    base.save_pretrained(root / "base")
    for seed, name in enumerate(("edges", "depth", "layout")):
        build_controlnet(base.unet, 100 + seed).save_pretrained(root / "controlnets" / name)
    (root / "loras").mkdir()
    loras = {
        "neon": random_lora(base, rank=4, seed=1, text_encoders=False),
        "gold": random_lora(base, rank=8, seed=2, text_encoders=True, conv=True),
        "kohya": kohya_lora(base, rank=4, alpha=2.0, seed=3),
    }
    for name, weights in loras.items():
        save_file(weights, root / "loras" / f"{name}.safetensors")
    return root
