"""Owns what importers have in common: a source's request as it was found, before anything is made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .options import TimeUnit

Adapter = tuple[str, float | None]
"""A LoRA's id and its scale, if the source has one."""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """One request as its source has it; what the source lacks is None or empty.

    Attributes:
        where: Place in the source, for errors, such as ``trace.csv:12``.
        timestamp: As it stands there: a number in some unit, or a date and time.
        notes: What the importer made up or changed, as (field, how).
    """

    where: str
    timestamp: float | str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_images: int | None = None
    slo_ms: float | None = None
    controlnets: tuple[str, ...] = ()
    loras: tuple[Adapter, ...] = ()
    base_model: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request that is left out; reasons are few, they are counted."""

    reason: str


Row = SourceRequest | Dropped


@dataclass(frozen=True)
class Reading:
    """A source about to be read.

    Attributes:
        files: What is read.
        rows: Its requests in the file's order; reading raises `TraceError`.
        has_timestamps: Whether its requests have arrival times.
        lists_controlnets: Whether a request without ControlNets is known to have had none.
        relative_unit: Unit of timestamps that count from the trace's start, where the format fixes it.
    """

    files: tuple[Path, ...]
    rows: Iterator[Row]
    has_timestamps: bool = True
    lists_controlnets: bool = True
    relative_unit: TimeUnit | None = None
