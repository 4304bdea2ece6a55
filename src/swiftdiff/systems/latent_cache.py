"""Owns the noisy latents that approximate caching keeps, and finds those of the most similar prompt.

The method is Nirvana's (arXiv 2312.04429): the more alike two prompts are, the later the step from which one
picture's denoising may go on as the other's. What leaves a full cache saves the fewest steps: uses times
steps (the paper's LCBFU), each latent on its own. Simpler than there: the nearest prompt is found by looking
at all of them, and nothing predicts whether that is worth while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from swiftdiff.config import NirvanaConfig


@dataclass(frozen=True)
class Nearest:
    """The most similar prompt that there are latents of.

    Attributes:
        similarity: Cosine of the two prompts' embeddings.
        step: The step to begin with, which is how many are skipped; 0 if it is not similar enough.
        latents: As they were before that step, on the host, [pictures, channels, height, width]; None at 0.
    """

    similarity: float
    step: int = 0
    latents: torch.Tensor | None = None


@dataclass
class _State:
    latents: torch.Tensor
    uses: int = 1  # its own request's
    last_use: int = 0


@dataclass
class _Entry:
    embedding: torch.Tensor
    num_pictures: int
    states: dict[int, _State] = field(default_factory=dict)  # by step


class LatentCache:
    """Latents of prompts, for requests that are alike in all but prompt and noise.

    Args:
        config: Which similarity lets how many steps be skipped, the budget and what leaves first.
    """

    def __init__(self, config: NirvanaConfig) -> None:
        self._skips = config.skips
        self._budget = round(config.cache_mb * 1e6)
        self._weighs_savings = config.eviction == "lcbfu"
        self._entries: defaultdict[Hashable, list[_Entry]] = defaultdict(list)
        self._tick = 0
        self.used_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def steps_to_keep(self, num_steps: int) -> tuple[int, ...]:
        """Return the steps before which latents should be kept: all that a request could begin with."""
        steps = {round(share * num_steps) for _, share in self._skips}
        return tuple(sorted(step for step in steps if 0 < step < num_steps))

    def find(
        self, kind: Hashable, embedding: torch.Tensor, num_steps: int, num_pictures: int
    ) -> Nearest | None:
        """Return the most similar prompt and what it offers; None if there is no prompt to compare with.

        Where the latents that its similarity allows are gone, those of an earlier step take their place.

        Args:
            kind: Requests of one kind can go on from each other's latents.
            embedding: Of the prompt, one-dimensional.
            num_steps: Of the request.
            num_pictures: Of the request; prompts with fewer are passed over.
        """
        entries = [entry for entry in self._entries.get(kind, ()) if entry.num_pictures >= num_pictures]
        if not entries:
            return None
        similarities = torch.stack([entry.embedding for entry in entries]) @ _unit(embedding)
        index = int(similarities.argmax())
        similarity = float(similarities[index])
        allowed = self._allowed_step(similarity, num_steps)
        step = max((step for step in entries[index].states if step <= allowed), default=0)
        if not step:
            return Nearest(similarity)
        state = entries[index].states[step]
        state.uses += 1
        self._touch(state)
        return Nearest(similarity, step, state.latents[:num_pictures])

    def put(self, kind: Hashable, embedding: torch.Tensor, latents: Mapping[int, torch.Tensor]) -> None:
        """Keep a request's latents; others may have to go.

        Args:
            kind: As for `find`.
            embedding: As for `find`.
            latents: As they were before each step of `steps_to_keep`, on the host.
        """
        if not latents:
            return
        entry = _Entry(_unit(embedding), len(next(iter(latents.values()))))
        for step, tensor in latents.items():
            entry.states[step] = state = _State(tensor)
            self._touch(state)
            self.used_bytes += tensor.nbytes
        self.used_bytes += entry.embedding.nbytes
        self._entries[kind].append(entry)
        while self.used_bytes > self._budget:
            self._evict()

    def _allowed_step(self, similarity: float, num_steps: int) -> int:
        shares = [share for least, share in self._skips if similarity >= least]
        return min(round(shares[-1] * num_steps), num_steps - 1) if shares else 0

    def _evict(self) -> None:
        kind, entry, step, state = min(self._states(), key=lambda found: self._rank(found[2], found[3]))
        del entry.states[step]
        self.used_bytes -= state.latents.nbytes
        if not entry.states:
            self.used_bytes -= entry.embedding.nbytes
            self._entries[kind] = [other for other in self._entries[kind] if other is not entry]

    def _states(self) -> Iterator[tuple[Hashable, _Entry, int, _State]]:
        for kind, entries in self._entries.items():
            for entry in entries:
                for step, state in entry.states.items():
                    yield kind, entry, step, state

    def _rank(self, step: int, state: _State) -> tuple[int, int]:
        return (state.uses * step if self._weighs_savings else 0, state.last_use)

    def _touch(self, state: _State) -> None:
        self._tick += 1
        state.last_use = self._tick


def _unit(embedding: torch.Tensor) -> torch.Tensor:
    return F.normalize(embedding.detach().to("cpu", torch.float32), dim=0)
