"""Owns the wire format of worlds: how they are begun, steered and described."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from swiftdiff.request import MAX_SEED
from swiftdiff.validation import StrictModel

Text = Annotated[str, Field(min_length=1)]


class WorldOffer(StrictModel):
    """What ``GET /v1/worlds`` answers: which worlds can be begun here.

    Attributes:
        model: Its name.
        example: A prompt that the model understands, another one each time.
        prompts: All that it understands, where they can be listed: the first 200. Else empty.
        actions: Words that steer a world for a block; empty where any prompt may.
        fps: Frames a second at most.
        frames_per_block: What is asked of a world shows at the begin of a block of so many frames.
        worlds: That run now.
        max_worlds: That may run.
        prompt_chars: A prompt's or action's most characters.
        images: Whether the server draws pictures too, at its root.
    """

    model: str
    example: str
    prompts: tuple[str, ...]
    actions: tuple[str, ...]
    fps: float
    frames_per_block: int
    worlds: int
    max_worlds: int
    prompt_chars: int
    images: bool


class WorldRequest(StrictModel):
    """The body of ``POST /v1/worlds``. The same prompt and seed give the same world.

    Attributes:
        prompt: What its first block shows.
        seed: Of its noise; none is drawn at random, and told in the response.
    """

    prompt: Text
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None


class SteerRequest(StrictModel):
    """The body of ``POST /v1/worlds/{world}/steer``.

    Attributes:
        text: An action or prompt.
        blocks: For how many blocks; none is until something else is asked for.
    """

    text: Text
    blocks: Annotated[int, Field(ge=1, le=10_000)] | None = None


class WorldState(StrictModel):
    """A world that runs.

    Attributes:
        id: Its name; whoever knows it may watch and steer.
        frames: Where its frames are, relative to the server's root.
        seed: Of its noise.
        blocks: Made so far.
        frames_shown: So far.
        frames_missed: Dropped because viewers were slow, all together.
        viewers: That watch now.
    """

    id: str
    frames: str
    seed: int
    blocks: int
    frames_shown: int
    frames_missed: int
    viewers: int


class Steered(StrictModel):
    """What ``POST /v1/worlds/{world}/steer`` answers: the block that shows it at the latest."""

    text: str
    from_block: int
