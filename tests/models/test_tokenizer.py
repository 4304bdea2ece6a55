"""Tests of tokenizers that are built in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from swiftdiff.models.tokenizer import clip_tokenizer

WORDS = ("a", "large", "red", "redder", "to", "photo", "square", "arena", "circle", "above", "background")
TOKENIZER = clip_tokenizer(WORDS, max_length=32)


@pytest.mark.parametrize("word", WORDS)
def test_each_given_word_is_one_token(word: str) -> None:
    assert TOKENIZER.tokenize(word) == [word + "</w>"]


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text_can_be_spelt_without_the_unknown_token(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    if "<|endoftext|>" not in text:
        assert ids.count(TOKENIZER.eos_token_id) == 1


def test_a_reloaded_tokenizer_gives_the_same_ids(tmp_path: Path) -> None:
    for pad in ("<|endoftext|>", "!"):
        tokenizer = clip_tokenizer(WORDS, max_length=32, pad_token=pad)
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        again = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
        arguments = {"padding": "max_length", "truncation": True}
        text = "A large RED circle, above 12 zebras! é"
        assert again(text, **arguments).input_ids == tokenizer(text, **arguments).input_ids
        assert (again.model_max_length, again.pad_token) == (32, pad)


def test_the_end_token_has_the_highest_id_and_exclamation_mark_zero() -> None:
    assert TOKENIZER.eos_token_id == len(TOKENIZER) - 1
    assert TOKENIZER.convert_tokens_to_ids("!") == 0
