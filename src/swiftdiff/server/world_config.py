"""Owns how worlds are shown: how many may watch, and what becomes of those that are slow or gone."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe


class StreamConfig(StrictModel):
    """How worlds are shown.

    Attributes:
        max_viewers: Streams at one time, of all worlds together.
        queue_frames: That a viewer may lag behind; the oldest are dropped then, and counted.
        max_missed: Frames dropped in a row after which a viewer that takes none is sent away.
        idle_s: Seconds after which a world that nobody watches ends. It stands still meanwhile.
        fps: Frames a second at most; None is the model's own.
    """

    max_viewers: Annotated[int, Field(ge=1, le=10_000)] = 16
    queue_frames: Annotated[int, Field(ge=1, le=1000)] = 6
    max_missed: Annotated[int, Field(ge=1)] = 300
    idle_s: Annotated[float, Field(ge=0)] = 15.0
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None


def load_stream_config(**options: Any) -> StreamConfig:
    """Return how worlds are shown.

    Args:
        **options: Fields of `StreamConfig`; None says nothing.

    Raises:
        ConfigError: A value is wrong.
    """
    try:
        return StreamConfig.model_validate(
            {name: value for name, value in options.items() if value is not None}
        )
    except ValidationError as error:
        raise ConfigError(f"options: {describe(error, StreamConfig)}") from error
