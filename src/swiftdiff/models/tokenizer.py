"""Builds small CLIP tokenizers in memory: no vocabulary file, no network, any text can be spelt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_END_OF_WORD = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(words: Iterable[str], *, max_length: int, pad_token: str = _END) -> CLIPTokenizer:
    """Return a CLIP tokenizer that has every byte and, as one token each, the given words.

    Ids: 256 bytes, 256 bytes that end a word, parts of words, start, end. The end token has the highest id,
    as in CLIP, whose text model looks for it there when its config has the historic ``eos_token_id`` of 2.

    Args:
        words: Words of letters only; their parts become tokens too, since byte-pair encoding merges in steps.
        max_length: Longest sequence in tokens, start and end included.
        pad_token: What fills a prompt up; SDXL's second tokenizer uses ``!``, which has id 0 here as there.
    """
    from transformers import CLIPTokenizer

    alphabet = _byte_alphabet()
    spelt = []
    for word in sorted({word.lower() for word in words if word}):
        characters = [alphabet[byte] for byte in word.encode()]
        spelt.append((*characters[:-1], characters[-1] + _END_OF_WORD))
    merges = _learn_merges(spelt)
    tokens = dict.fromkeys(
        [*alphabet.values(), *(character + _END_OF_WORD for character in alphabet.values())]
    )
    tokens.update(dict.fromkeys(left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate([*tokens, _START, _END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length, pad_token=pad_token)


def _learn_merges(words: list[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Learn byte-pair merges, most frequent first, until every word is one token."""
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_merge(word, best) for word in words]
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    index = 0
    while index < len(word):
        found = word[index : index + 2] == pair
        merged.append("".join(pair) if found else word[index])
        index += 2 if found else 1
    return tuple(merged)


def _byte_alphabet() -> dict[int, str]:
    """Return what stands for each byte in byte-level BPE (GPT-2's mapping), in CLIP's order of ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
