"""Owns a block's way through the transformer: predict, commit, and the same without a cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from swiftdiff.world.attention import CachedPass, prompt_keys_values, take_part, under_way
from swiftdiff.world.block_sequence import BlockSequence
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.cross_cache import CrossCache
from swiftdiff.world.kernels import faster
from swiftdiff.world.kv_cache import BlockKVCache, CacheShape
from swiftdiff.world.traced import TracedPasses

_MAX_SHAPES = 64  # in training clips differ in length


class CausalWan:
    """A stock Wan transformer that makes a video block by block (Self-Forcing, arXiv 2506.08009).

    Its rotary module and attention processors are replaced, its code and weights are not; outside these
    methods it stays the stock model. What a pass needs lies in its arguments, so any number of threads may
    use one instance at a time, each with a cache of its own.

    Args:
        transformer: Text-to-video; in the mode (train, eval) and on the device of the caller's choice.
        fast: Run passes with a cache by `faster` kernels, and as traced graphs where that is possible: with a
            `CrossCache`, and a cache that is native and on the device. For a CPU, and weights that do not
            change.

    Attributes:
        transformer: The same.

    Raises:
        ModelError: The transformer reads an image beside the prompt.
    """

    def __init__(self, transformer: WanTransformer3DModel, fast: bool = False) -> None:
        self.transformer = transformer
        self._rotary = take_part(transformer)
        self._shapes = lru_cache(_MAX_SHAPES)(partial(_compute_shapes, transformer.config))
        self._cached = faster(transformer) if fast else transformer
        self._traced = TracedPasses(self._cached) if fast else None

    def with_kernels_of_cached_passes(self) -> CausalWan:
        """Return what runs every pass, also one that recomputes, by the kernels that passes with a cache run
        by; itself if those are stock's.
        """
        return self if self._traced is None else CausalWan(self._cached)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.transformer.patch_embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        dtype: torch.dtype = self.transformer.patch_embedding.weight.dtype
        return dtype

    def cache_shape(self, latents_shape: Sequence[int]) -> CacheShape:
        """Return what a block of latents [batch, channels, frames, height, width] leaves in a cache."""
        return self._shapes(tuple(latents_shape))[0]

    def new_cache(self, latents_shape: Sequence[int], config: CacheConfig) -> BlockKVCache:
        """Return an empty cache for clips whose blocks have this shape.

        Raises:
            ConfigError: It would keep more blocks than the model has positions, or memory is out.
        """
        self._rotary.turns(self._grid(latents_shape), self.device).at(config.num_slots)
        return BlockKVCache(self.cache_shape(latents_shape), config, self.device, self.dtype)

    @torch.no_grad()
    def cross_cache(self, prompt: torch.Tensor) -> CrossCache:
        """Return a prompt's keys and values, filled at once and not by the first pass.

        Args:
            prompt: [batch, tokens, text_dim].
        """
        cross = CrossCache()
        cross.fill(prompt_keys_values(self.transformer, prompt.to(self.device, self.dtype)))
        return cross

    @torch.no_grad()
    def predict(
        self,
        latents: torch.Tensor,
        timestep: float,
        prompt: torch.Tensor,
        cache: BlockKVCache,
        cross: CrossCache | None = None,
    ) -> torch.Tensor:
        """Return the flow of the block in the making, of the latents' shape; the past is only read.

        Args:
            latents: Noisy, [batch, channels, frames, height, width].
            timestep: From 0, clean, to 1000, noise.
            prompt: [batch or 1, tokens, text_dim].
            cache: The clip's past.
            cross: Keeps the prompt's keys and values from pass to pass; None computes them in each.

        Raises:
            RequestError: The cache's policy is ``full``, and the clip has ``max_blocks`` already.
            ConfigError: The cache keeps more blocks than the model has positions.
        """
        return self._run_block(latents, timestep, prompt, cache, cross, keep=False)

    @torch.no_grad()
    def commit(
        self,
        latents: torch.Tensor,
        prompt: torch.Tensor,
        cache: BlockKVCache,
        cross: CrossCache | None = None,
    ) -> None:
        """Make a finished block part of the past: one pass at timestep 0, the only one that writes.

        Args:
            latents: Clean, [batch, channels, frames, height, width].
            prompt: As for `predict`.
            cache: The clip's past; as it was if this raises.
            cross: As for `predict`.

        Raises:
            RequestError: The cache's policy is ``full``, and the clip has ``max_blocks`` already.
            ConfigError: The cache keeps more blocks than the model has positions.
        """
        self._run_block(latents, 0.0, prompt, cache, cross, keep=True)
        cache.commit()

    def recache(
        self,
        blocks: Iterable[torch.Tensor],
        prompt: torch.Tensor,
        cache: BlockKVCache,
        cross: CrossCache | None = None,
    ) -> None:
        """Make the past anew, as if it had come about under another prompt.

        Args:
            blocks: Clean latents, the oldest first: those that the cache is to hold.
            prompt: As for `predict`.
            cache: Cleared first.
            cross: As for `predict`.
        """
        cache.clear()
        for latents in blocks:
            self.commit(latents, prompt, cache, cross)

    @torch.no_grad()
    def recompute(
        self,
        context: torch.Tensor,
        latents: torch.Tensor,
        timestep: float,
        prompts: torch.Tensor,
        config: CacheConfig | None = None,
    ) -> torch.Tensor:
        """Return what `predict` returns, from the past's latents and not from a cache.

        All blocks go through the transformer in one pass whose attention is masked block by block, which is
        how a stock model would be used. Where sinks have come apart from the window no mask can say what a
        block sees, and attention is computed for one block at a time.

        Args:
            context: Clean latents of the past, [batch, channels, blocks * frames, height, width].
            latents: Noisy, [batch, channels, frames, height, width].
            timestep: Of the noisy block.
            prompts: One for all blocks, [batch, tokens, text_dim], or one for each, the noisy one's last:
                [batch, blocks + 1, tokens, text_dim].
            config: Which of the past a block sees; None is all.

        Raises:
            ConfigError: The context is longer than the model has positions.
        """
        past = context.shape[2] // latents.shape[2]
        if prompts.ndim == 3:
            prompts = prompts.unsqueeze(1).expand(-1, past + 1, -1, -1)
        timesteps = torch.full((latents.shape[0], 1), timestep, dtype=torch.float32)
        return self._run_sequence(context, latents, timesteps, prompts, [past], config=config, is_masked=True)

    def teacher_forced(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        prompts: torch.Tensor,
        config: CacheConfig | None = None,
    ) -> torch.Tensor:
        """Return the flow of every block at once, each seeing the clean blocks before it; for training.

        One pass does what the engine does in many: noisy block i attends to itself and to the clean blocks
        that a cache would hold, clean blocks to one another in the same way, at timestep 0.

        Args:
            clean: Latents, [batch, channels, blocks * frames, height, width]; the last block is not used.
            noisy: Of the same shape.
            timesteps: Of the noisy blocks, [batch, blocks].
            prompts: Of the blocks, [batch, blocks, tokens, text_dim].
            config: Which of the past a block sees; None is all.

        Returns:
            The noisy blocks' flow, of their shape; differentiable.

        Raises:
            ConfigError: There are more blocks than the model has positions.
        """
        blocks = timesteps.shape[1]
        past = clean[:, :, : -(clean.shape[2] // blocks)]
        prompts = torch.cat((prompts[:, :-1], prompts), dim=1)
        return self._run_sequence(past, noisy, timesteps, prompts, range(blocks), config=config)

    def _run_block(
        self,
        latents: torch.Tensor,
        timestep: float,
        prompt: torch.Tensor,
        cache: BlockKVCache,
        cross: CrossCache | None,
        *,
        keep: bool,
    ) -> torch.Tensor:
        if (shape := self.cache_shape(latents.shape)) != cache.shape:
            raise ValueError(f"the cache is for blocks of {cache.shape}, not of {shape}")
        cache.check_room()
        turns = cache.begin(self._rotary.turns(self._grid(latents.shape), self.device))
        batch = latents.shape[0]
        latents = latents.to(self.device, self.dtype)
        if cross is None or not cross.is_filled:  # not in every pass: to copy it from the host is to wait
            prompt = prompt.to(self.device, self.dtype).expand(batch, -1, -1)
        if cross is not None:
            if not cross.is_filled:
                cross.fill(prompt_keys_values(self.transformer, prompt))
            # the stock model embeds whatever it is given
            prompt = latents.new_empty((batch, 0, prompt.shape[-1]))
        store = cache.plain
        if self._traced is not None and cross is not None and store is not None:
            flow = self._traced.run(store, cross, latents, timestep, turns, keep=keep)
            if keep:
                cache.kept_all()
            return flow
        times = torch.full((batch,), timestep, dtype=torch.float32, device=self.device)
        with under_way(CachedPass(cache, turns, keep, cross)):
            return self._forward(self._cached, latents, times, prompt)

    def _run_sequence(
        self,
        past: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        prompts: torch.Tensor,
        places: Sequence[int],
        *,
        config: CacheConfig | None,
        is_masked: bool = False,
    ) -> torch.Tensor:
        frames = noisy.shape[2] // len(places)
        grid = self._grid((*noisy.shape[:2], frames, *noisy.shape[3:]))
        num_clean = past.shape[2] // frames
        clean_times = timesteps.new_zeros((timesteps.shape[0], num_clean))
        times = torch.cat((clean_times, timesteps), dim=1).to(self.device)
        turns = self._rotary.turns(grid, self.device)
        sequence = BlockSequence(num_clean, places, math.prod(grid), turns, config)
        if is_masked:
            sequence = replace(sequence, mask=sequence.make_mask(self.device))
        with under_way(sequence):
            flow = self._forward(
                self.transformer,
                torch.cat((past, noisy), dim=2),
                times.repeat_interleave(sequence.tokens, dim=1),
                prompts.to(self.device, self.dtype),
            )
        return flow[:, :, past.shape[2] :]

    def _forward(
        self,
        transformer: WanTransformer3DModel,
        latents: torch.Tensor,
        times: torch.Tensor,
        prompt: torch.Tensor,
    ) -> torch.Tensor:
        flow: torch.Tensor = transformer(
            latents.to(self.device, self.dtype), times, prompt, return_dict=False
        )[0]
        return flow

    def _grid(self, latents_shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the tokens of a block of latents in time, height and width."""
        return self._shapes(tuple(latents_shape))[1]


def _compute_shapes(
    config: Mapping[str, Any], latents_shape: tuple[int, ...]
) -> tuple[CacheShape, tuple[int, int, int]]:
    """Return what a block leaves in a cache, and its tokens in time, height and width.

    Once for each size: diffusers' configs are slow to ask in every pass.
    """
    sizes = zip(latents_shape[2:], config["patch_size"], strict=True)
    frames, height, width = (size // patch for size, patch in sizes)
    shape = CacheShape(
        num_layers=config["num_layers"],
        num_heads=config["num_attention_heads"],
        head_dim=config["attention_head_dim"],
        tokens_per_block=frames * height * width,
        batch=latents_shape[0],
    )
    return shape, (frames, height, width)
