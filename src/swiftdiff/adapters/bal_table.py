"""Owns the table that ``bal_k = "auto"`` reads: how many steps may begin without each LoRA, as measured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from swiftdiff.adapters.bal import LoraBound, RequestBound
from swiftdiff.config import SchedulerName
from swiftdiff.errors import ConfigError
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.validation import StrictModel, describe

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_AGAIN = "measure again with swiftdiff sweep-k"


class TableEntry(StrictModel):
    """One LoRA of a table.

    Attributes:
        k: Steps that may begin without it and keep quality within the table's margin.
        sha256: Of its file.
        scale: That it was measured with. A larger one changes pictures more: for it k is 0.
        pictures: That k rests on.
    """

    k: Annotated[int, Field(ge=0)]
    sha256: Sha256
    scale: Annotated[float, Field(gt=0)]
    pictures: Annotated[int, Field(ge=1)]


class BalTable(StrictModel):
    """How many steps may begin without each LoRA of one model.

    Attributes:
        format: Version of the file's format.
        model: The model's name when it was measured.
        weights_sha256: Of its weights, see `swiftdiff.models.weights_digest`.
        scheduler: That it was measured with.
        num_inference_steps: That it was measured with; k is a share of them for other requests.
        margin: Quality that could be lost, by measure.
        loras: By id.
    """

    format: Literal[1]
    model: Annotated[str, Field(min_length=1)]
    weights_sha256: Sha256
    scheduler: SchedulerName
    num_inference_steps: Annotated[int, Field(ge=1)]
    margin: dict[str, float]
    loras: dict[str, TableEntry]

    @model_validator(mode="after")
    def _check_that_k_is_a_step(self) -> Self:
        for name, entry in self.loras.items():
            if entry.k >= self.num_inference_steps:
                raise ValueError(f"a k below num_inference_steps ({self.num_inference_steps}) for {name!r}")
        return self

    @property
    def sha256_of_loras(self) -> dict[str, str]:
        """The SHA-256 of each LoRA's file, by id."""
        return {name: entry.sha256 for name, entry in self.loras.items()}

    def bound_of(self, request: ImageRequest) -> RequestBound:
        """Return where a request waits: at the lowest k of its LoRAs; 0 for one that was not measured."""
        own = {use.id: self._bound(use, request.num_inference_steps) for use in request.loras}
        return RequestBound(min((bound.k for bound in own.values()), default=0), own)

    def check_scheduler(self, scheduler: SchedulerName, where: str) -> None:
        """Raise ConfigError if the table was measured with another scheduler."""
        if scheduler != self.scheduler:
            raise ConfigError(
                f"bal_table {where} was measured with scheduler {self.scheduler!r}, and this system has "
                f"{scheduler!r}; {_AGAIN}"
            )

    def check_weights(self, weights_sha256: str, model: str, where: str) -> None:
        """Raise ConfigError if the table was measured with other weights."""
        if weights_sha256 != self.weights_sha256:
            raise ConfigError(
                f"bal_table {where} is for other weights than those of model {model!r}: it was measured with "
                f"model {self.model!r}, SHA-256 {self.weights_sha256[:12]}…, and these are "
                f"{weights_sha256[:12]}…; {_AGAIN}"
            )

    def to_toml(self) -> str:
        """Return the file's text; reading it gives an equal table."""
        return tomli_w.dumps(self.model_dump())

    def _bound(self, use: LoraUse, steps: int) -> LoraBound:
        entry = self.loras.get(use.id)
        if entry is None:
            return LoraBound(0, "not in bal_table")
        if abs(use.scale) > entry.scale:
            return LoraBound(0, f"scale above the {entry.scale:g} of bal_table")
        return LoraBound(entry.k * steps // self.num_inference_steps)


def read_bal_table(path: Path) -> BalTable:
    """Read a table.

    Raises:
        ConfigError: It is missing, is not TOML, or a name or value in it is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return BalTable.model_validate(values)
    except OSError as error:
        raise ConfigError(f"cannot read bal_table {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise ConfigError(f"bal_table {path}: {describe(error, BalTable)}") from error
    except ValueError as error:
        raise ConfigError(f"bal_table {path}: not valid TOML: {error}") from error
