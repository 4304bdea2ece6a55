"""Owns a world that runs: one model, the lanes it computes on, and the sessions that share it.

Sessions share lanes a step at a time, in the order in which they ask, so that each gets its part; a session's
blocks are the same whatever runs beside it.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import torch

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.lane import Lane
from swiftdiff.telemetry.timeline import OFF, Timeline
from swiftdiff.world.admission import MEGABYTE, Admission
from swiftdiff.world.config import WorldConfig
from swiftdiff.world.decoding import StreamingDecoder
from swiftdiff.world.guidance import MAX_KEPT_PROMPTS, GuidedWorld, Half
from swiftdiff.world.kv_cache import BlockKVCache
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.profile import Profiler
from swiftdiff.world.sampling import make_schedule
from swiftdiff.world.session import Past, SessionParts, WorldSession
from swiftdiff.world.steering import Prompt, Steering

# Multiplications of a pass, about. Threads that share fewer wait for one another longer than they compute:
# bounce's 8e7 take two of them twice as long as one. Where it begins to pay was not measured.
_LEAST_SHARED = 5e8


class WorldEngine:
    """Makes clips, several side by side, with one model.

    `open`, `close` and all methods of sessions may be called on any thread.

    Args:
        model: Shared by all sessions and never changed; it computes where its weights are.
        config: How it is run. Its ``model`` is not looked at.
        timeline: Gets a span for each step, commit pass and decoding.
        profile: False measures nothing: blocks have no times, and the timeline no spans.

    Raises:
        ConfigError: The memory budget fits no session.
    """

    def __init__(
        self,
        model: WorldModel,
        config: WorldConfig | None = None,
        *,
        timeline: Timeline = OFF,
        profile: bool = True,
    ) -> None:
        self.model = model
        self.config = config if config is not None else WorldConfig()
        self._timeline = timeline
        self._profile = profile
        self._shape = model.settings.block_shape
        self._is_guided = self.config.guidance_scale > 1
        cache_shape = model.causal.cache_shape(self._shape)
        num_bytes = BlockKVCache.bytes_for(cache_shape, self.config.cache, model.causal.dtype)
        budget_mb = self.config.memory_budget_mb
        self._admission = Admission(
            num_bytes * (2 if self._is_guided else 1),
            self.config.max_sessions,
            None if budget_mb is None else int(budget_mb * MEGABYTE),
        )
        self._schedule = make_schedule(self.config.sampler or model.settings.sampler)
        self._lock = threading.Lock()  # of what follows
        self._sessions: dict[int, WorldSession] = {}
        self._num_opened = 0
        self._is_open = True
        self._lanes = self._start_lanes()

    @property
    def fps(self) -> float:
        """Frames a second at which clips are to be shown."""
        return self.model.settings.fps

    @property
    def sessions(self) -> tuple[WorldSession, ...]:
        """Sessions that are open, oldest first."""
        with self._lock:
            return tuple(self._sessions.values())

    @property
    def session_bytes(self) -> int:
        """What the caches of one session take."""
        return self._admission.session_bytes

    @property
    def cache_bytes(self) -> int:
        """What the caches of all open sessions take."""
        return self._admission.used_bytes

    @property
    def capacity(self) -> int:
        """Sessions that fit side by side."""
        return self._admission.capacity

    def open(self, prompt: str, seed: int = 0) -> WorldSession:
        """Begin a clip.

        Args:
            prompt: Of its first block, and of those after it unless the model has one of its own for these.
            seed: 0 or more; with the same one, the same prompts make the same clip.

        Raises:
            BudgetError: As many sessions run as may, or its cache does not fit beside theirs.
            SwiftdiffError: The prompt means nothing to the model, or the seed is negative.
        """
        if seed < 0:
            raise ConfigError.for_field("seed", seed, "0 or more")
        prompts, resting = self.model.prompts, self.model.settings.resting_prompt
        steering = Steering(prompts.encode, prompt, resting, prompts.follow)
        null = Prompt("", prompts.null()) if self._is_guided else None
        with self._lock:
            if not self._is_open:
                raise ConfigError("the world engine is closed and opens no more sessions")
            self._admission.admit()
            self._num_opened += 1
            number = self._num_opened
        try:
            session = WorldSession(number, seed, self._make_parts(number, steering, null))
        except BaseException:
            self._admission.release()
            raise
        if not self._remember(session):  # closed meanwhile, which closed the sessions that it saw
            session.close()
        return session

    def close(self) -> None:
        """Close all sessions and end the lanes; more calls do nothing."""
        with self._lock:
            self._is_open = False
        for session in self.sessions:
            session.close()
        for lane in self._lanes:
            lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_lanes(self) -> tuple[Lane, ...]:
        """Start one lane, or one for each half of guidance; on a CPU they share its threads."""
        wants_two = self._is_guided and self.config.latent_parallelism
        device = self.model.causal.device
        if device.type == "cuda":
            roles = ("world", "world, unconditional")[: 1 + wants_two]
            return tuple(Lane(str(device), role=role) for role in roles)
        threads = self.config.threads or torch.get_num_threads()
        most = 1 if self.config.threads is None and self._is_small() else threads
        if not wants_two or threads < 2:
            return (Lane("cpu", most, role="world"),)
        return (
            Lane("cpu:0", min(threads - threads // 2, most), role="world"),
            Lane("cpu:1", min(threads // 2, most), role="world, unconditional"),
        )

    def _is_small(self) -> bool:
        causal = self.model.causal
        num_weights: int = sum(weight.numel() for weight in causal.transformer.parameters())
        return num_weights * causal.cache_shape(self._shape).tokens_per_block < _LEAST_SHARED

    def _make_parts(self, number: int, steering: Steering, null: Prompt | None) -> SessionParts:
        config, causal = self.config, self.model.causal
        profiler = Profiler(self._timeline, is_cuda=causal.device.type == "cuda", enabled=self._profile)
        max_prompts = MAX_KEPT_PROMPTS if config.on_prompt_change == "keep" else 1
        halves = tuple(
            Half(causal, causal.new_cache(self._shape, config.cache), max_prompts)
            for _ in range(2 if null is not None else 1)
        )
        world = GuidedWorld(
            halves,
            null,
            config.guidance_scale,
            lanes=self._lanes,
            schedule=self._schedule,
            profiler=profiler,
        )
        return SessionParts(
            world=world,
            schedule=self._schedule,
            decoder=StreamingDecoder(self.model.vae),
            steering=steering,
            profiler=profiler,
            lane=self._lanes[0],
            shape=self._shape,
            max_blocks=config.cache.max_blocks if config.cache.policy == "full" else None,
            past=Past(config.cache) if config.on_prompt_change == "recache" else None,
            release=lambda: self._forget(number),
        )

    def _remember(self, session: WorldSession) -> bool:
        with self._lock:
            self._sessions[session.number] = session
            return self._is_open

    def _forget(self, number: int) -> None:
        with self._lock:
            self._sessions.pop(number, None)
        self._admission.release()
