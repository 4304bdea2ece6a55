"""The family's two tokenizers: a word of the scene language is one token, others are spelt in bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swiftdiff.models.tokenizer import clip_tokenizer
from swiftdiff.scenes.scene import BACKGROUNDS, COLOURS, POSITIONS, RELATIONS, SHAPES, SIZES

from .architecture import MAX_TOKENS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_OTHER_WORDS = (
    "a an and the of in on at to with over under tiny little big huge background picture photo drawing",
    "style grey black white brown dark bright near next beside between two three shapes one many no",
)


def build_tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """SDXL's pair: the first pads with the end token, the second with "!" (id 0)."""
    phrases = [*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *POSITIONS, *RELATIONS, *_OTHER_WORDS]
    words = {word for phrase in phrases for word in phrase.split()}
    return (
        clip_tokenizer(words, max_length=MAX_TOKENS),
        clip_tokenizer(words, max_length=MAX_TOKENS, pad_token="!"),
    )
