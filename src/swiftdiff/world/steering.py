"""Decides which prompt each block is made with; it can be told from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from swiftdiff.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a block is told.

    Attributes:
        text: As the user wrote it.
        features: [1, tokens, dimensions].
        is_lasting: Asked for by `Steering.steer` to stay: the past may be rewritten for it.
    """

    text: str
    features: torch.Tensor
    is_lasting: bool = False


class Steering:
    """The prompts of a session.

    Args:
        encode: Makes features of text, and raises a SwiftdiffError for what it does not understand.
        first: The first block's prompt, whatever is asked before it is made.
        resting: The prompt of further blocks until another is asked for; None is ``first``.
    """

    def __init__(self, encode: Callable[[str], torch.Tensor], first: str, resting: str | None) -> None:
        self._encode = encode
        self._lock = threading.Lock()
        self._first: Prompt | None = Prompt(first, encode(first))
        self._lasting = self._first if resting is None else Prompt(resting, encode(resting))
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
        prompt = Prompt(text, self._encode(text), is_lasting=blocks is None)
        with self._lock:
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
            if self._passing is None:
                return self._lasting
            prompt = self._passing
            self._passing_blocks -= 1
            if self._passing_blocks == 0:
                self._passing = None
            return prompt
