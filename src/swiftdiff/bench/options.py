"""Owns how a benchmark is asked for: the file ``bench.json``, by which it is resumed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from swiftdiff.bench.settings import PAPER_SETTINGS, AdapterSetting

View = Literal["same-hardware", "one-core"]
VIEWS: tuple[View, ...] = ("same-hardware", "one-core")
AnyView = Literal["same-hardware", "one-core", "gpu"]  # the last is `swiftdiff bench-gpu`'s only one
DEFAULT_MODELS = ("shapes", "sdxl-thin")


class BenchOptions(BaseModel):
    """What is measured.

    Attributes:
        models: Names as in system configs.
        settings: Names of adapter settings, such as ``1C/1L``; None is the paper's seven.
        views: What a system may use. ``same-hardware``: all cores. ``one-core``: one core stands for one
            device, so stock gets one and swiftdiff one for each of its two lanes.
        systems: Names from the line-up; None is each where it has something to show.
        repeats: Measurements of each request by each system.
        steps: Denoising steps.
        warmups: Short requests of each setting that each system serves first, not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    models: Annotated[tuple[str, ...], Field(min_length=1)] = DEFAULT_MODELS
    settings: tuple[str, ...] | None = None
    views: Annotated[tuple[View, ...], Field(min_length=1)] = VIEWS
    systems: tuple[str, ...] | None = None
    repeats: Annotated[int, Field(ge=1)] = 5
    steps: Annotated[int, Field(ge=1)] = 20
    warmups: Annotated[int, Field(ge=0)] = 1

    @property
    def adapter_settings(self) -> tuple[AdapterSetting, ...]:
        """The settings to measure, in order, each once."""
        if self.settings is None:
            return PAPER_SETTINGS
        return tuple(dict.fromkeys(AdapterSetting.parse(name) for name in self.settings))
