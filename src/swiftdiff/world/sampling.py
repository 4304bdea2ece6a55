"""Owns the way from noise to a clean block: noise levels, one step between two of them, and seeded noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swiftdiff.world.config import SamplerConfig

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class NoiseSchedule:
    """Noise levels of a block, as diffusers' ``FlowMatchEulerDiscreteScheduler`` has them.

    Attributes:
        sigmas: Shifted, falling; the last one is 0.
        timesteps: What the model is told at each level but the last: 1000 times sigma.
        renoise: Whether a step predicts the clean block and adds fresh noise (the stock scheduler's
            ``stochastic_sampling``), or follows the flow.
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    renoise: bool

    @property
    def num_steps(self) -> int:
        """Passes of the model for one block."""
        return len(self.timesteps)

    def needs_noise(self, step: int) -> bool:
        """Tell whether `step` takes fresh noise at this step."""
        return self.renoise and self.sigmas[step + 1] > 0

    def step(
        self, latents: torch.Tensor, flow: torch.Tensor, step: int, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the latents at the next noise level.

        Args:
            latents: At the level of ``step``, any shape.
            flow: The model's prediction for them: noise minus clean.
            step: Number of the step.
            noise: Fresh, where `needs_noise` says so.
        """
        sigma, following = self.sigmas[step], self.sigmas[step + 1]
        sample = latents.float()
        if not self.renoise:
            # The difference as float32, as the stock scheduler takes it.
            advanced = sample + float(np.float32(following) - np.float32(sigma)) * flow
        else:
            clean = sample - sigma * flow
            advanced = clean if noise is None else (1.0 - following) * clean + following * noise
        return advanced.to(flow.dtype)


def make_schedule(config: SamplerConfig) -> NoiseSchedule:
    """Return the noise levels that a config describes."""
    given = np.array(config.sigmas, dtype=np.float32)
    shift = np.float32(config.shift)
    sigmas = shift * given / (np.float32(1) + (shift - np.float32(1)) * given)
    timesteps = sigmas * np.float32(NUM_TRAIN_TIMESTEPS)
    return NoiseSchedule(
        sigmas=(*map(float, sigmas), 0.0), timesteps=tuple(map(float, timesteps)), renoise=config.renoise
    )


def block_noise(seed: int, block: int, num_draws: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Return a block's noise, the same on every machine and whatever runs beside.

    A block's draws depend on the seed and its number alone, so a clip can be made again from any block on.

    Args:
        seed: The session's.
        block: The block's number in the clip.
        num_draws: How many: one to begin with, and one for each step that takes fresh noise.
        shape: Of the block's latents.

    Returns:
        Standard normal, float32, on the CPU.
    """
    state = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) & ((1 << 63) - 1))
    return [torch.randn(shape, generator=generator) for _ in range(num_draws)]
