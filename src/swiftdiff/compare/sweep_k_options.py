"""Owns how a sweep of k is asked for: the file ``sweep.json``, by which it is resumed."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, model_validator

from swiftdiff.config import ServingConfig, StoreEmulationConfig
from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, unknown_name

#: What quality is judged by: the style and what the prompt says, as the embedded model's judges see them, and
#: the likeness of any picture with the one at k = 0.
Measure = Literal["style", "attributes", "ssim"]
JUDGED: Final[tuple[Measure, ...]] = ("style", "attributes")
DEFAULT_MARGIN: Final = 0.05
LORA_SCALE: Final = 1.0


class SweepOptions(StrictModel):
    """What is measured.

    Attributes:
        config: The system, its paths absolute; its ``bal_k`` does not count.
        loras: Ids, each measured alone.
        ks: Steps that begin without the LoRA, rising from 0.
        num_inference_steps: Of every request.
        prompts: Pictures for each LoRA and k.
        repeats: Latencies for each LoRA and k.
        seed: Of the scenes and of their pictures' noise; a trace's requests keep their own.
        load_time_ms: What loading a LoRA takes, added to the read itself; None leaves it to the config's
            store.
        margin: Quality that may be lost, one number for the measures that apply to a LoRA, or by measure.
        trace: File that prompts, ControlNets and seeds are taken from; None makes scenes up.
        trace_sha256: Of its content.
    """

    format: Literal[1] = 1
    config: ServingConfig
    loras: Annotated[tuple[str, ...], Field(min_length=1)]
    ks: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)]
    num_inference_steps: Annotated[int, Field(ge=2, le=1000)] = 20
    prompts: Annotated[int, Field(ge=1)] = 16
    repeats: Annotated[int, Field(ge=0)] = 3
    seed: Annotated[int, Field(ge=0, le=2**32)] = 0
    load_time_ms: Annotated[float, Field(ge=0, le=3.6e6)] | None = None
    margin: float | dict[Measure, float] = DEFAULT_MARGIN
    trace: str | None = None
    trace_sha256: str | None = None

    @model_validator(mode="after")
    def _check_that_ks_rise_from_0(self) -> SweepOptions:
        if (
            self.ks[0] != 0
            or list(self.ks) != sorted(set(self.ks))
            or self.ks[-1] >= self.num_inference_steps
        ):
            raise ValueError(f"ks that rise from 0 and stay below {self.num_inference_steps}")
        return self

    @property
    def serving(self) -> ServingConfig:
        """The system as it is swept: LoRAs come from the store each time, and the sweep sets k."""
        switches = {"bal_k": 0, "bal_table": None, "lora_cache_mb": 0.0, "prefetch": True}
        return self.config.model_copy(update={"swiftdiff": self.config.swiftdiff.model_copy(update=switches)})

    @property
    def emulation(self) -> StoreEmulationConfig:
        """How far away LoRAs are while latency is measured."""
        if self.load_time_ms is None:
            return self.config.adapters.emulate
        return StoreEmulationConfig(latency_ms=self.load_time_ms)

    def margin_of(self, is_judged: bool) -> dict[Measure, float]:
        """Return what may be lost of each measure that decides.

        Args:
            is_judged: Whether the LoRA's style and what its pictures show can be judged.
        """
        if not isinstance(self.margin, dict):
            return dict.fromkeys(JUDGED if is_judged else ("ssim",), self.margin)
        return self.margin


def parse_ks(text: str, steps: int) -> tuple[int, ...]:
    """Return the ks that ``0,2,4`` or ``0-8`` names, with 0, which all others are measured against.

    Raises:
        ConfigError: It is no list of whole numbers below ``steps``, or names none above 0.
    """
    ks = {0}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        last = int(match[2] or match[1]) if match else -1
        if match is None or last >= steps or int(match[1]) > last:
            allowed = f"steps from 0 to {steps - 1} such as 0,2,4 or 0-8 (there are {steps} steps)"
            raise ConfigError.for_field("--k", text, allowed)
        ks |= set(range(int(match[1]), last + 1))
    if ks == {0}:
        raise ConfigError.for_field("--k", text, "at least one step above 0")
    return tuple(sorted(ks))


def spread_ks(points: int, steps: int) -> tuple[int, ...]:
    """Return about ``points`` ks from 0 to the last step, nearer to each other where early steps matter."""
    last = steps - 1
    return tuple(sorted({round(last * (index / (points - 1)) ** 1.7) for index in range(points)}))


def parse_margin(text: str) -> float | dict[Measure, float]:
    """Return the margin that ``0.05`` or ``style=0.05,attributes=0.1`` names.

    Raises:
        ConfigError: It is neither, or a number in it is not from 0 to 1.
    """
    if "=" not in text:
        return _share(text, text)
    margin: dict[Measure, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        known = {str(each): each for each in get_args(Measure)}
        if name.strip() not in known:
            raise ConfigError(f"--margin: {unknown_name('measure', name.strip(), known)}")
        margin[known[name.strip()]] = _share(number, text)
    return margin


def _share(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        allowed = "a number from 0 to 1, or such numbers by measure: style=0.05,attributes=0.05"
        raise ConfigError.for_field("--margin", text, allowed)
    return value


def parse_load_time(text: str) -> float | None:
    """Return the milliseconds that ``--load-time`` names; None for ``measured``.

    Raises:
        ConfigError: It is neither.
    """
    if text == "measured":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 3.6e6:
        allowed = "milliseconds up to 3600000, or measured"
        raise ConfigError.for_field("--load-time", text, allowed)
    return value
