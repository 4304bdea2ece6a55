"""Owns one clip while it is made: its next block, its steering, and what it remembers of its past."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from swiftdiff.errors import RequestError
from swiftdiff.pipeline.lane import Lane
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.decoding import Frames, StreamingDecoder, to_frames, unstandardise
from swiftdiff.world.guidance import Commit, GuidedWorld
from swiftdiff.world.profile import BlockTimes, Profiler, Stretch
from swiftdiff.world.sampling import NoiseSchedule, block_noise
from swiftdiff.world.steering import Prompt, Steering


class SessionClosedError(RequestError):
    """A session was closed, by its owner or with its engine, and makes no more blocks."""


@dataclass(frozen=True, eq=False)
class Block:
    """A finished part of a clip.

    Attributes:
        index: Its number in the clip, from 0.
        prompt: What it was made with.
        frames: Pictures, uint8, [frames, height, width, 3].
        latents: Clean, as the transformer has them, float32, [1, C, F, H, W], on the model's device; not to
            be changed.
        times: What it took; None if the engine does not profile.
    """

    index: int
    prompt: str
    frames: Frames
    latents: torch.Tensor
    times: BlockTimes | None


class Past:
    """Clean latents of the blocks whose keys and values the cache holds.

    Args:
        config: Of the cache.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._num_sinks = config.sink_blocks if config.policy == "window+sink" else 0
        self._sinks: list[torch.Tensor] = []
        self._recent: deque[torch.Tensor] = deque(maxlen=config.num_slots - self._num_sinks)

    def add(self, latents: torch.Tensor) -> None:
        """Note the clip's next block."""
        if len(self._sinks) < self._num_sinks:
            self._sinks.append(latents)
        else:
            self._recent.append(latents)

    def blocks(self) -> list[torch.Tensor]:
        """Return them in the clip's order."""
        return [*self._sinks, *self._recent]


@dataclass(frozen=True)
class SessionParts:
    """What an engine gives a session to work with.

    Attributes:
        world: The model with the session's caches.
        schedule: Of a block's noise levels.
        decoder: Of the clip.
        steering: The clip's prompts.
        profiler: Of the session.
        lane: Where blocks are decoded.
        shape: Of a block's latents, [1, C, F, H, W].
        max_blocks: The longest clip, or None.
        past: Where the past is kept to be written anew under another prompt, or None.
        release: Gives back what the session took.
    """

    world: GuidedWorld
    schedule: NoiseSchedule
    decoder: StreamingDecoder
    steering: Steering
    profiler: Profiler
    lane: Lane
    shape: tuple[int, int, int, int, int]
    max_blocks: int | None
    past: Past | None
    release: Callable[[], None]


class WorldSession:
    """A clip that goes on for as long as it is asked to. Made by `WorldEngine.open`.

    Any thread may call any method. Blocks are made one at a time; `steer` waits for none of them, and `close`
    for a step at most.

    Args:
        number: Of the session in its engine.
        seed: Of the noise.
        parts: What it works with.

    Attributes:
        number: As it was given.
        seed: The same.
    """

    def __init__(self, number: int, seed: int, parts: SessionParts) -> None:
        self.number = number
        self.seed = seed
        self._parts = parts
        self._turn = threading.Lock()  # held by who makes a block
        self._is_closed = False
        # What follows is changed only by who holds the turn.
        self._is_released = False
        self._num_blocks = 0
        self._failure: BaseException | None = None
        self._commit: Commit | None = None
        self._written_for: int | None = None  # the wish, as prompts count them

    @property
    def num_blocks(self) -> int:
        """Blocks made so far."""
        return self._num_blocks

    @property
    def is_closed(self) -> bool:
        """Whether no more blocks are made."""
        return self._is_closed

    @property
    def cache_bytes(self) -> int:
        """What its keys and values take; the same from its first block to its last."""
        return self._parts.world.cache_bytes

    def next_block(self, latents: torch.Tensor | None = None) -> Block:
        """Make the clip's next block and return it once its pixels are there.

        The pass that writes it into the cache runs after that, while the caller shows it.

        Args:
            latents: Of this block as an earlier session of the clip made it, float32, [1, C, F, H, W]. They
                are decoded and committed and not made anew: so a clip goes on after its session is gone.

        Raises:
            SessionClosedError: The session was closed, perhaps while this block was made.
            RequestError: The clip is as long as the cache's ``max_blocks`` lets it be, or an earlier block
                failed.
        """
        with self._turn:
            self._check()
            try:
                return self._make_block(latents)
            except SessionClosedError:
                raise
            except torch.OutOfMemoryError as error:
                self._failure = error
                raise RequestError(
                    f"world session {self.number}: there is no memory for block {self._num_blocks}: {error}"
                ) from error
            except BaseException as error:  # an interrupt too: it may have left a block half made
                self._failure = error
                raise

    def steer(self, text: str, blocks: int | None = None) -> None:
        """Ask for another prompt or action from the next block boundary on; what was asked last counts.

        The first block is always made with the prompt that the session was opened with.

        Args:
            text: A prompt, or an action that the model knows.
            blocks: For that many blocks, then back to the last lasting prompt; None is lasting. Only a
                lasting one makes the past be written anew, with ``on_prompt_change = "recache"``.

        Raises:
            SwiftdiffError: The text means nothing to the model, or ``blocks`` is not positive; the session
                goes on as it was.
            SessionClosedError: The session was closed.
        """
        if self._is_closed:
            raise SessionClosedError(f"world session {self.number} is closed")
        self._parts.steering.steer(text, blocks)

    def close(self) -> None:
        """Give back the session's memory; a block under way ends after its step. More calls do nothing."""
        self._is_closed = True
        with self._turn:
            if self._commit is not None:
                self._commit.drop()
                self._commit = None
            if not self._is_released:
                self._is_released = True
                self._parts.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        """Raise why no block can be made."""
        self._check_open()
        if self._failure is not None:
            raise RequestError(
                f"world session {self.number} failed in block {self._num_blocks} and cannot go on: "
                f"{type(self._failure).__name__}: {self._failure}"
            )
        limit = self._parts.max_blocks
        if limit is not None and self._num_blocks >= limit:
            raise RequestError(
                f"world session {self.number} has {limit} blocks, which is max_blocks of the cache policy "
                "full: raise it, or take the policy window, which has no limit"
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise SessionClosedError(f"world session {self.number} is closed")

    def _make_block(self, known: torch.Tensor | None) -> Block:
        parts, index = self._parts, self._num_blocks
        asked_s = parts.profiler.now()
        committed = self._finish_commit()
        prompt = parts.steering.take()
        committed += self._rewrite_past(prompt)
        latents, steps = self._denoise(index, prompt) if known is None else (known, [])
        self._check_open()
        frames, decoded = parts.lane.submit(self._decode, latents, index).result()
        shown_s = parts.profiler.now()
        self._commit = parts.world.commit(latents, prompt, self._about(index))
        if parts.past is not None:
            parts.past.add(latents)
        self._num_blocks += 1
        times = None
        if parts.profiler.enabled:
            times = BlockTimes(
                first_pixels_s=shown_s - asked_s,
                steps_s=tuple(step.seconds for step in steps),
                decode_s=decoded.seconds,
                commit_s=sum(commit.seconds for commit in committed),
                overhead_s=parts.profiler.overhead_s,
            )
        return Block(index, prompt.text, frames, latents, times)

    def _finish_commit(self) -> list[Stretch]:
        if self._commit is None:
            return []
        commit, self._commit = self._commit, None
        return [commit.result()]

    def _rewrite_past(self, prompt: Prompt) -> list[Stretch]:
        """With a new lasting prompt, write the whole past as if it had been made with that one."""
        past = self._parts.past
        if past is None or not prompt.is_lasting or prompt.asked == self._written_for:
            return []
        self._written_for = prompt.asked
        self._parts.world.forget()
        stretches = []
        for latents in past.blocks():  # one at a time, so that other sessions get their turn
            self._check_open()
            stretches.append(
                self._parts.world.rewrite(latents, prompt, self._about(self._num_blocks)).result()
            )
        return stretches

    def _denoise(self, index: int, prompt: Prompt) -> tuple[torch.Tensor, list[Stretch]]:
        schedule, world = self._parts.schedule, self._parts.world
        renoised = sum(schedule.needs_noise(step) for step in range(schedule.num_steps))
        latents, *fresh = block_noise(self.seed, index, 1 + renoised, self._parts.shape)
        draws = iter(fresh)
        stretches = []
        for step in range(schedule.num_steps):
            self._check_open()
            noise = next(draws) if schedule.needs_noise(step) else None
            about = self._about(index) | {"step": step}
            latents, stretch = world.step(latents, step, prompt, noise, about).result()
            stretches.append(stretch)
        return latents, stretches

    def _decode(self, latents: torch.Tensor, index: int) -> tuple[Frames, Stretch]:
        profiler, decoder = self._parts.profiler, self._parts.decoder
        stretch = profiler.begin()
        frames = to_frames(decoder.decode(unstandardise(latents, decoder.vae)))
        profiler.end(stretch, "world_decode", self._about(index))
        return frames, stretch

    def _about(self, index: int) -> dict[str, str | int | float]:
        return {"session": self.number, "block": index}
