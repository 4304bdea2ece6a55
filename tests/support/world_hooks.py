"""A world whose prompts are any words and whose passes a test can watch, hold up or fail."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import torch

from swiftdiff.errors import RequestError
from swiftdiff.world.causal import CausalWan
from swiftdiff.world.config import SamplerConfig, WorldConfig
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.session import Block, WorldSession

TWO_STEPS = SamplerConfig(sigmas=(1.0, 0.5))


class WordPrompts:
    """Features drawn from the text's checksum; what begins with ``unknown`` is none."""

    def __init__(self, text_dim: int) -> None:
        self._text_dim = text_dim

    def encode(self, text: str) -> torch.Tensor:
        if text.startswith("unknown"):
            raise RequestError(f"unknown action {text!r}")
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return torch.randn((1, 4, self._text_dim), generator=generator)

    def null(self) -> torch.Tensor:
        return torch.zeros(1, 4, self._text_dim)

    def follow(self, told: str, asked: str) -> str:
        return asked


class Hooked:
    """A model whose passes tell a test first, and are otherwise those of the real one."""

    def __init__(self, causal: CausalWan) -> None:
        self._causal = causal
        self.before: Callable[[str, int], None] = lambda name, number: None
        self._counts = {"predict": 0, "commit": 0}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._causal, name)

    def predict(self, *arguments: Any) -> torch.Tensor:
        self._tell("predict")
        return self._causal.predict(*arguments)

    def commit(self, *arguments: Any) -> None:
        self._tell("commit")
        self._causal.commit(*arguments)

    def _tell(self, name: str) -> None:
        number, self._counts[name] = self._counts[name], self._counts[name] + 1
        self.before(name, number)


def with_words(model: WorldModel) -> WorldModel:
    """A world of two steps whose prompts last."""
    prompts = WordPrompts(model.causal.transformer.config.text_dim)
    settings = model.settings.model_copy(update={"resting_prompt": None, "sampler": TWO_STEPS})
    return dataclasses.replace(model, prompts=prompts, settings=settings)


def with_hooks(model: WorldModel) -> tuple[WorldModel, Hooked]:
    causal = Hooked(model.causal)
    return dataclasses.replace(model, causal=causal), causal


def config(**changes: Any) -> WorldConfig:
    return WorldConfig(threads=1, **changes)


def make(session: WorldSession, num_blocks: int) -> list[Block]:
    return [session.next_block() for _ in range(num_blocks)]


def latents(blocks: list[Block]) -> list[torch.Tensor]:
    return [block.latents for block in blocks]


def all_equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
