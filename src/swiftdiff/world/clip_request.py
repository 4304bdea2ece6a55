"""Owns what a clip is asked for by: its prompt and length, and where it is steered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe


class Steer(StrictModel):
    """A change of prompt in a clip.

    Attributes:
        block: The first block that is made with it, from 1.
        text: A prompt, or an action that the model knows.
        blocks: How many blocks; None is all further ones.
    """

    block: Annotated[int, Field(ge=1)]
    text: Annotated[str, Field(min_length=1)]
    blocks: Annotated[int, Field(ge=1)] | None = None


class ClipRequest(StrictModel):
    """What a clip is made from.

    Attributes:
        prompt: Of the first block, and of those after it until steered.
        num_blocks: How long it is.
        seed: Of the noise.
        steers: Changes of the prompt.
    """

    prompt: Annotated[str, Field(min_length=1)]
    num_blocks: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    steers: tuple[Steer, ...] = ()


def parse_request(**values: Any) -> ClipRequest:
    """Return a request made of a command's options.

    Raises:
        ConfigError: One of them is wrong, or the clip has no block that a change of the prompt is for.
    """
    try:
        request = ClipRequest.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, ClipRequest)) from error
    for steer in request.steers:
        if steer.block >= request.num_blocks:
            raise ConfigError.for_field(
                "--steer",
                f"{steer.block}:{steer.text}",
                f"of a block below {request.num_blocks}, the length of the clip",
            )
    return request


def parse_steer(text: str, *, is_action: bool) -> Steer:
    """Return the change of prompt that ``BLOCK:TEXT`` or ``FIRST-LAST:TEXT`` describes.

    Args:
        text: As it was written. A single block is where an action happens, or where a prompt begins.
        is_action: Whether the model's prompts are actions of one block each.

    Raises:
        ConfigError: It has another form, or the blocks are not 1 or more and rising.
    """
    where, colon, wanted = text.partition(":")
    first, dash, last = where.strip().partition("-")
    numbers = [first, last] if dash else [first]
    if not colon or not wanted.strip() or not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError.for_field("--steer", text, 'BLOCK:TEXT or FIRST-LAST:TEXT, such as "5:push left"')
    begin = int(first)
    end = int(last) if dash else begin if is_action else None
    if begin < 1 or (end is not None and end < begin):
        raise ConfigError.for_field(
            "--steer", text, "of rising blocks from 1 on: block 0 is made with PROMPT"
        )
    return Steer(block=begin, text=wanted.strip(), blocks=None if end is None else end - begin + 1)
