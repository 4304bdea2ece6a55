"""Makes many bounce clips at once for the judge, with the engine's parts: cache, sampler and seeded noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from swiftdiff.world.config import CacheConfig, SamplerConfig
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.sampling import NoiseSchedule, block_noise, make_schedule

from .framewise import decode_clips
from .prompts import block_features, scene_features
from .scene import COLOUR, COLOURS, Scenes


class Roller:
    """Makes clips of one model.

    Args:
        model: Bounce.
        seed: Clip i has the noise that the engine would give a session of seed `seed` + i.
        cache: What blocks see of the past; None is the engine's default.
        sampler: None is the model's own.
    """

    def __init__(
        self,
        model: WorldModel,
        seed: int,
        cache: CacheConfig | None = None,
        sampler: SamplerConfig | None = None,
    ) -> None:
        self._model = model
        self._seed = seed
        self._cache = cache or CacheConfig()
        self._schedule = make_schedule(sampler or model.settings.sampler)

    @torch.inference_mode()
    def roll(self, scenes: Scenes, actions: NDArray[np.int64], first_clip: int = 0) -> NDArray[np.uint8]:
        """Return the pictures of clips, uint8 [clips, frames, 32, 32, 3].

        Args:
            scenes: What each begins with.
            actions: Of each block, [clips, blocks]; the first block's prompt is the scene.
            first_clip: Number of the first clip, for its noise.
        """
        causal, schedule = self._model.causal, self._schedule
        shape = self._model.settings.block_shape
        cache = causal.new_cache((len(scenes), *shape[1:]), self._cache)
        blocks, colour = [], scenes.colour
        for block in range(actions.shape[1]):
            colour = (colour + (actions[:, block] == COLOUR)[:, None]) % len(COLOURS)
            told = block_features(colour, scenes.present, actions[:, block])
            features = scene_features(scenes) if block == 0 else told
            cross = causal.cross_cache(torch.from_numpy(features))
            prompt = torch.from_numpy(features)
            draws = self._noise(schedule, block, len(scenes), first_clip)
            latents = draws.pop(0)
            for step, timestep in enumerate(schedule.timesteps):
                flow = causal.predict(latents, timestep, prompt, cache, cross)
                noise = draws.pop(0) if schedule.needs_noise(step) else None
                latents = schedule.step(latents, flow, step, noise)
            causal.commit(latents, prompt, cache, cross)
            blocks.append(latents)
        pictures = decode_clips(self._model.vae, torch.cat(blocks, dim=2))
        scaled = (pictures.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        clips: NDArray[np.uint8] = scaled.permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()
        return clips

    def _noise(self, schedule: NoiseSchedule, block: int, clips: int, first_clip: int) -> list[torch.Tensor]:
        """Return each draw for all clips, [clips, C, F, H, W]: each clip's are those of its own seed."""
        draws = 1 + sum(schedule.needs_noise(step) for step in range(schedule.num_steps))
        shape = self._model.settings.block_shape
        each = [block_noise(self._seed + first_clip + clip, block, draws, shape) for clip in range(clips)]
        causal = self._model.causal
        return [torch.cat(draw).to(causal.device, causal.dtype) for draw in zip(*each, strict=True)]
