"""Owns the spec of a made-up trace: strict TOML, validated once into frozen models."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Annotated, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from swiftdiff import resources
from swiftdiff.errors import ConfigError
from swiftdiff.request import MAX_IMAGES, MAX_SEED, MAX_SIDE, MAX_STEPS, SIZE_MULTIPLE
from swiftdiff.trace.synthesis.adapters import Adapters, ControlNets
from swiftdiff.trace.synthesis.arrivals import Arrivals
from swiftdiff.trace.synthesis.draws import Choice, FloatDraw, IntDraw, Range, SizeDraw
from swiftdiff.validation import StrictModel, describe

_SPECS = "specs"
_MAX_BYTES = 1 << 22
_ARRAY = re.compile(r"= \[\n((?: {4}[^\n\[\]]*,\n)+)\]")  # as tomli_w writes it, an entry a line


def _one_line(array: re.Match[str]) -> str:
    entries = " ".join(line.strip() for line in array[1].splitlines()).removesuffix(",")
    if len(entries) < 80:
        return f"= [{entries}]"
    return "= [\n" + textwrap.fill(entries, 100, initial_indent="    ", subsequent_indent="    ") + ",\n]"


def _check_values(name: str, choice: Choice[int], most: int) -> None:
    wrong = [value for value in choice.values if not 1 <= value <= most]
    if wrong:
        raise ValueError(f"given with {name} from 1 to {most}, not {wrong[0]}")


class Prompts(StrictModel):
    """Where prompts come from.

    Attributes:
        shapes: Number of scenes of the embedded model's world; each has a caption and control images.
        file: In place of captions, a text file with a prompt a line, relative to the spec.
        negative: The negative prompt of all requests.
    """

    shapes: Annotated[int, Field(ge=1, le=10_000)] = 64
    file: Annotated[str, Field(min_length=1)] | None = None
    negative: str | None = None


class Pictures(StrictModel):
    """What requests ask of their pictures.

    Attributes:
        size: Width and height in pixels; None is the model's native size.
        num_inference_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance.
        num_images: Pictures a request.
        slo_ms: Latency within which a request should be served; None is no such goal.
    """

    size: SizeDraw | None = None
    num_inference_steps: IntDraw = Choice[int](values=(20,))
    guidance_scale: FloatDraw = Range(values=(5.0,))
    num_images: IntDraw = Choice[int](values=(1,))
    slo_ms: FloatDraw | None = None

    @model_validator(mode="after")
    def _check_that_it_can_be_served(self) -> Self:
        _check_values("num_inference_steps", self.num_inference_steps, MAX_STEPS)
        _check_values("num_images", self.num_images, MAX_IMAGES)
        if self.guidance_scale.least < 0:
            raise ValueError("given with guidance_scale at least 0")
        if self.slo_ms is not None and self.slo_ms.least <= 0:
            raise ValueError("given with slo_ms greater than 0")
        for side in (side for size in (self.size.values if self.size else ()) for side in size):
            if not (0 < side <= MAX_SIDE and side % SIZE_MULTIPLE == 0):
                raise ValueError(
                    f"given with sides that are multiples of {SIZE_MULTIPLE} up to {MAX_SIDE}, not {side}"
                )
        return self


class TraceSpec(StrictModel):
    """What a made-up trace is like.

    Attributes:
        description: For readers.
        requests: How many, unless the command says.
        seed: Of all that is drawn, unless the command says.
        resolution_ms: Arrivals are rounded down to whole steps of this clock.
        load_times: A file of measured load times that belongs to the workload, relative to the spec. It does
            not change the trace: name it in a system's ``[adapters.emulate]``.
        arrivals: When requests arrive.
        prompts: What they show.
        pictures: Steps, sizes and the like.
        adapters_in_turn: Pairs of numbers, ControlNets and LoRAs, that requests have one after the other, in
            place of the two ``per_request``.
        loras: Their LoRAs; None is none.
        controlnets: Their ControlNets; None is none.
    """

    description: str = ""
    requests: Annotated[int, Field(ge=1)] = 1000
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    resolution_ms: Annotated[float, Field(ge=0.001, le=3.6e6)] = 1.0
    load_times: Annotated[str, Field(min_length=1)] | None = None
    arrivals: Arrivals
    prompts: Prompts = Prompts()
    pictures: Pictures = Pictures()
    adapters_in_turn: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)] | None = None
    loras: Adapters | None = None
    controlnets: ControlNets | None = None

    @model_validator(mode="after")
    def _check_numbers_of_adapters(self) -> Self:
        for place, (name, adapters) in enumerate((("controlnets", self.controlnets), ("loras", self.loras))):
            if adapters is not None and (adapters.per_request is None) == (self.adapters_in_turn is None):
                raise ValueError(f"given with either {name}.per_request or adapters_in_turn")
            for pair in self.adapters_in_turn or ():
                if adapters is not None:
                    adapters.check_count(pair[place])
                elif pair[place] != 0:
                    raise ValueError(f"given with a table {name}, which adapters_in_turn counts")
        return self

    def to_toml(self) -> str:
        """Return the spec as TOML; reading it gives an equal spec."""
        values = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return _ARRAY.sub(_one_line, tomli_w.dumps(values))


def load_spec(path: Path) -> TraceSpec:
    """Read a spec.

    Raises:
        ConfigError: The file is missing, is not TOML, or a key or value in it is wrong.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"cannot read spec {path}: it is larger than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read spec {path}: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read spec {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_spec(text, str(path))


def parse_spec(text: str, where: str = "spec") -> TraceSpec:
    """Validate TOML text; ``where`` names it in errors.

    Raises:
        ConfigError: It is not TOML, or a key or value in it is wrong.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    try:
        # As JSON, because TOML has lists where the models have tuples; dates become texts and are refused.
        return TraceSpec.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] == "value_error" and not problem["loc"]:  # about several tables: name none
            raise ConfigError(f"{where}: the spec must be {problem['ctx']['error']}") from error
        raise ConfigError(f"{where}: {describe(error, TraceSpec)}") from error


def find_spec(name: str) -> Path:
    """Return a spec's file: a path, or the name of a shipped spec such as ``production``.

    Raises:
        ConfigError: There is neither such a file nor such a shipped spec.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    shipped = shipped_specs()
    if name not in shipped:
        raise ConfigError(f"no spec {name!r}: name a TOML file or one of {', '.join(shipped)}")
    return shipped[name]


def shipped_specs() -> dict[str, Path]:
    """Return the shipped specs by name."""
    return {file.stem: file for file in sorted(resources.path(_SPECS).glob("*.toml"))}
