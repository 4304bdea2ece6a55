"""Owns how a world is run: strict, frozen settings of its cache, its sampler and its engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from swiftdiff.validation import StrictModel

CachePolicy = Literal["full", "window", "window+sink"]
CacheDtype = Literal["native", "int8"]
CacheStorage = Literal["device", "host"]
PromptChange = Literal["keep", "reset-cross", "recache"]


class CacheConfig(StrictModel):
    """What of the past a block sees, and how its keys and values are kept.

    Attributes:
        policy: ``full`` keeps every block up to ``max_blocks``; ``window`` the last ``window_blocks``;
            ``window+sink`` those and the first ``sink_blocks`` of the clip.
        window_blocks: Past blocks that are kept, the sink not counted.
        sink_blocks: First blocks that are never evicted, under ``window+sink``.
        max_blocks: The longest clip under ``full``, in blocks; memory is allocated for it once.
        dtype: ``native`` is the model's; ``int8`` is approximate, with a scale for each token and head.
        storage: ``host`` keeps blocks in (pinned) host memory and fetches each layer ahead of its use.
    """

    policy: CachePolicy = "window"
    window_blocks: Annotated[int, Field(ge=1, le=4096)] = 6
    sink_blocks: Annotated[int, Field(ge=1, le=4096)] = 1
    max_blocks: Annotated[int, Field(ge=1, le=4096)] = 64
    dtype: CacheDtype = "native"
    storage: CacheStorage = "device"

    @property
    def num_slots(self) -> int:
        """Past blocks that may be kept at one time."""
        if self.policy == "full":
            return self.max_blocks
        return self.window_blocks + (self.sink_blocks if self.policy == "window+sink" else 0)


class SamplerConfig(StrictModel):
    """How noise becomes a block.

    Attributes:
        sigmas: Noise levels before the shift, falling, from 1. The default with shift 5 is Self-Forcing's
            four steps: timesteps 1000, 937.5, 833.3 and 625.
        shift: Of the flow-match schedule: sigma becomes ``shift * sigma / (1 + (shift - 1) * sigma)``.
        renoise: True predicts the clean block and adds fresh noise for the next level (Self-Forcing,
            consistency models); False takes Euler steps along the flow.
    """

    sigmas: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0, 0.75, 0.5, 0.25)
    shift: Annotated[float, Field(gt=0, le=100)] = 5.0
    renoise: bool = False

    @model_validator(mode="after")
    def _check_that_levels_fall(self) -> Self:
        if not self.sigmas or any(a <= b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError("sigmas: at least one noise level, each below the one before")
        return self


class WorldConfig(StrictModel):
    """A world and how it is run.

    Attributes:
        model: ``bounce``, or a folder in diffusers format.
        cache: Of each session.
        sampler: None is what the model's folder says.
        guidance_scale: Of classifier-free guidance; 1 is without.
        latent_parallelism: Guidance's two halves on two lanes.
        on_prompt_change: What a new prompt does with what was kept of the old: ``keep`` the past's keys and
            values; ``reset-cross``: those of the prompt alone are made anew; ``recache``: the past's
            too, from its clean latents.
        memory_budget_mb: For the caches of all sessions, in 10^6 bytes; None is no limit.
        max_sessions: Sessions side by side.
        threads: Of the CPU; None is one a lane for a model as small as bounce, else torch's choice.
    """

    model: Annotated[str, Field(min_length=1)] = "bounce"
    cache: CacheConfig = CacheConfig()
    sampler: SamplerConfig | None = None
    guidance_scale: Annotated[float, Field(ge=1, le=100)] = 1.0
    latent_parallelism: bool = True
    on_prompt_change: PromptChange = "reset-cross"
    memory_budget_mb: Annotated[float, Field(gt=0)] | None = None
    max_sessions: Annotated[int, Field(ge=1, le=1024)] = 4
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
