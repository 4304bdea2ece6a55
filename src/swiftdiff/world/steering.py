"""Decides which prompt each block is made with; it can be told from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from swiftdiff.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a block is told.

    Attributes:
        text: As the user wrote it.
        features: [1, tokens, dimensions].
        is_lasting: Asked for by `Steering.steer` to stay: the past may be rewritten for it.
        asked: Counts what was asked for: the same in all blocks that one wish leads to.
        told: The whole text that the features are of, where the model is told more than was asked for.
    """

    text: str
    features: torch.Tensor
    is_lasting: bool = False
    asked: int = 0
    told: str | None = None

    @property
    def whole(self) -> str:
        """The text that the features are of."""
        return self.told or self.text


class Steering:
    """The prompts of a session.

    Args:
        encode: Makes features of text, and raises a SwiftdiffError for what it does not understand.
        first: The first block's prompt, whatever is asked before it is made.
        resting: The prompt of further blocks until another is asked for; None is ``first``.
        follow: Makes a block's whole text of the text of the block before and of what is asked for; None
            takes what is asked for as it is.
    """

    def __init__(
        self,
        encode: Callable[[str], torch.Tensor],
        first: str,
        resting: str | None,
        follow: Callable[[str, str], str] | None = None,
    ) -> None:
        self._encode = encode
        self._follow = follow
        self._lock = threading.Lock()  # `steer` and `take` are called by different threads
        self._told = first
        self._num_asked = 1
        self._first: Prompt | None = Prompt(first, encode(first))
        self._lasting = self._first if resting is None else Prompt(resting, encode(resting), asked=1)
        self._passing: Prompt | None = None
        self._passing_blocks = 0

    def steer(self, text: str, blocks: int | None = None) -> None:
        """Ask for a prompt from the next block boundary on; what was asked last counts.

        Args:
            text: A prompt, or an action that the model knows.
            blocks: For that many blocks, then back to the last lasting one; None is lasting.

        Raises:
            SwiftdiffError: The text means nothing to the model, or ``blocks`` is not positive; all stays
            as it was.
        """
        if blocks is not None and blocks < 1:
            raise ConfigError.for_field("blocks", blocks, "1 or more, or nothing for a lasting prompt")
        features = self._encode(text)
        with self._lock:
            self._num_asked += 1
            prompt = Prompt(text, features, is_lasting=blocks is None, asked=self._num_asked)
            if blocks is None:
                self._lasting, self._passing = prompt, None
            else:
                self._passing, self._passing_blocks = prompt, blocks

    def take(self) -> Prompt:
        """Return the prompt of the block that begins now; to be called once for each block."""
        with self._lock:
            if self._first is not None:
                first, self._first = self._first, None
                return first
            prompt = self._wanted()
            if self._follow is None:
                return prompt
            self._told = self._follow(self._told, prompt.text)
            return replace(prompt, told=self._told, features=self._encode(self._told))

    def _wanted(self) -> Prompt:
        """Return what is asked of the block that begins now."""
        if self._passing is None:
            return self._lasting
        prompt = self._passing
        self._passing_blocks -= 1
        if self._passing_blocks == 0:
            self._passing = None
        return prompt
