"""Stage 2, the base, and what all later stages share: prompts to embeddings, pictures to noised latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from swiftdiff.scenes.captions import caption
from swiftdiff.scenes.render import Image8, render
from swiftdiff.scenes.scene import Scene, sample_scene

from .architecture import VAE_FACTOR, build_scheduler, time_ids
from .trainer import Plan
from .vocabulary import build_tokenizers

#: side, weight of objects, plan: small pictures first, where a step costs a quarter and places, colours and
#: grounds are learnt; then the native size, where shapes are
BASE_PLANS = (
    (64, 2.0, Plan("base-64", steps=30_000, batch_size=16, learning_rate=6e-4)),
    (128, 5.0, Plan("base-128", steps=12_000, batch_size=16, learning_rate=4e-4)),
)
#: share of prompts replaced by zeros, which is what the unconditional half of guidance sees
_DROP = 0.1
#: radius of the disc in which an object's weight holds, in radii of the object: it covers every shape alike
_DISC = 1.35
#: timestep below which places are plain to see
_PLACED = 400
_LOGIT_MEAN = -0.4
_UNIFORM_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Family:
    """The base's parts on one device."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    device: torch.device

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What the base stage trains, by its name in the pipeline."""
        return {"unet": self.unet, "text_encoder": self.text_encoder, "text_encoder_2": self.text_encoder_2}

    def freeze(self) -> None:
        """Stop training every part."""
        for module in (self.vae, *self.parts.values()):
            module.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Noised latents and what the UNet is asked: [N, 4, h, w] each, timesteps [N], and the conditioning.

    `weight` [N, 1, h, w] says how much an error counts where.
    """

    noisy: Tensor
    velocity: Tensor
    weight: Tensor
    timesteps: Tensor
    hidden: Tensor
    added: dict[str, Tensor]


class BatchMaker:
    """Draws fresh scenes and turns them into batches; owns the tokenizers and the noise schedule."""

    def __init__(
        self,
        family: Family,
        side: int,
        object_weight: float = 0.0,
        draw: Callable[[Sequence[Scene], int], Image8] = render,
    ) -> None:
        """Make batches at `side` pixels.

        Objects cover a tenth of a picture, and unweighted the network spends itself on the ground: an error
        within an object's disc counts 1 + `object_weight`. That holds at timesteps at which places show
        through the noise: earlier it would teach to draw an object wherever it might be. Discs know nothing
        of shapes, so what is learnt of these stays unbiased.
        """
        self._family = family
        self._side = side
        self._object_weight = object_weight
        self._draw = draw
        self._tokenizers = build_tokenizers()
        self._alphas_cumprod = build_scheduler().alphas_cumprod.to(family.device)

    def scenes(self, rng: np.random.Generator, number: int) -> list[Scene]:
        """Fresh scenes without held-out pairs."""
        return [sample_scene(rng) for _ in range(number)]

    def make(self, rng: np.random.Generator, scenes: Sequence[Scene], drop: float = _DROP) -> Batch:
        """Noise the scenes\' pictures at stratified timesteps; `drop` of the prompts become zeros."""
        family, number = self._family, len(scenes)
        latents = self._latents(self._draw(scenes, self._side))
        noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), np.float32)).to(family.device)
        timesteps = torch.from_numpy(_sample_timesteps(rng, number)).to(family.device)
        signal = self._alphas_cumprod[timesteps].sqrt()[:, None, None, None]
        spread = (1 - signal.square()).sqrt()
        hidden, pooled = self.encode([caption(scene, rng) for scene in scenes])
        keep = torch.from_numpy((rng.random(number) >= drop).astype(np.float32)).to(family.device)
        added = {
            "text_embeds": pooled * keep[:, None],
            "time_ids": time_ids(self._side, number).to(family.device),
        }
        return Batch(
            signal * latents + spread * noise,
            signal * noise - spread * latents,
            self._weight(scenes, timesteps),
            timesteps,
            hidden * keep[:, None, None],
            added,
        )

    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """SDXL's conditioning: both penultimate layers side by side [N, T, D], the pooled vector [N, P]."""
        family = self._family
        hidden, pooled = [], None
        for tokenizer, encoder in zip(
            self._tokenizers, (family.text_encoder, family.text_encoder_2), strict=True
        ):
            ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
            output = encoder(ids.to(family.device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled = output[0]
        assert pooled is not None
        return torch.cat(hidden, -1), pooled

    def _weight(self, scenes: Sequence[Scene], timesteps: Tensor) -> Tensor:
        side = self._side // VAE_FACTOR
        centres = (np.arange(side) + 0.5) / side
        inside = np.zeros((len(scenes), 1, side, side), np.float32)
        for index, scene in enumerate(scenes):
            for item in scene.objects:
                away = np.hypot(centres[None, :] - item.x, centres[:, None] - item.y)
                inside[index, 0][away < _DISC * item.radius] = self._object_weight
        placed = (timesteps < _PLACED)[:, None, None, None]
        return 1 + torch.from_numpy(inside).to(self._family.device) * placed

    @torch.no_grad()
    def _latents(self, pictures: Image8) -> Tensor:
        vae = self._family.vae
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self._family.device).float() / 127.5 - 1
        latents: Tensor = vae.encode(pixels).latent_dist.mode().float()
        return latents * float(vae.config["scaling_factor"])


class BaseTask:
    """UNet and both text encoders, trained together on velocity prediction."""

    def __init__(self, family: Family, side: int, object_weight: float) -> None:
        self._family = family
        self._batches = BatchMaker(family, side, object_weight)
        family.vae.requires_grad_(False)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained."""
        return self._family.parts

    def loss(self, rng: np.random.Generator, batch_size: int, fraction: float) -> Tensor:
        """Loss of one fresh batch."""
        batch = self._batches.make(rng, self._batches.scenes(rng, batch_size))
        return velocity_loss(self._family.unet, batch)


def _sample_timesteps(rng: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Timesteps 0..999, stratified over the batch, which takes noise from the steps' losses.

    Most are logit-normal (Esser et al. 2024, arXiv 2403.03206), shifted to less noise, where shapes are
    decided; a share is uniform, so that the noisiest timesteps, where places are, stay learnt.
    """
    strata = (np.arange(number) + rng.random(number)) / number
    places = special.expit(_LOGIT_MEAN + special.ndtri(np.clip(strata, 1e-4, 1 - 1e-4)))
    places = np.where(rng.random(number) < _UNIFORM_SHARE, strata, places)
    return rng.permutation((places * 1000).astype(np.int64))


def velocity_loss(
    unet: UNet2DConditionModel,
    batch: Batch,
    down_residuals: tuple[Tensor, ...] | None = None,
    mid_residual: Tensor | None = None,
) -> Tensor:
    """Weighted squared error of the predicted velocity (Salimans & Ho 2022, arXiv 2202.00512)."""
    output = unet(
        batch.noisy,
        batch.timesteps,
        batch.hidden,
        added_cond_kwargs=batch.added,
        down_block_additional_residuals=down_residuals,
        mid_block_additional_residual=mid_residual,
    ).sample
    weighted: Tensor = batch.weight * (output.float() - batch.velocity).square()
    return weighted.mean() / batch.weight.mean()
