"""Decides at which step a request waits for its LoRAs: a fixed one, or its LoRAs' own from a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from swiftdiff.adapters.bal import RequestBound, resolve_bound
from swiftdiff.adapters.bal_table import read_bal_table
from swiftdiff.config import ServingConfig
from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import Exactness


class BalBounds(Protocol):
    """Decides at which step requests wait for their LoRAs.

    Attributes:
        exactness: Of the pictures that come of it.
        expected_sha256: Of LoRAs' files that it holds for, by id; others are refused when they arrive.
    """

    exactness: Exactness
    expected_sha256: Mapping[str, str]

    def check_model(self, networks: Mapping[str, Any]) -> None:
        """Raise ConfigError if it was made for other weights; these are as they were loaded."""

    def bound_of(self, request: ImageRequest) -> RequestBound:
        """Return where a request waits."""


class FixedBound:
    """The same number or share of steps for all.

    Raises:
        ConfigError: It is neither.
    """

    def __init__(self, bal_k: int | str) -> None:
        self.exactness: Exactness = "exact" if resolve_bound(bal_k, 1000) == 0 else "approximate"
        self.expected_sha256: Mapping[str, str] = {}
        self._bal_k = bal_k

    def check_model(self, networks: Mapping[str, Any]) -> None:
        """Accept any model."""

    def bound_of(self, request: ImageRequest) -> RequestBound:
        """Return the step for the request's number of steps."""
        return RequestBound(resolve_bound(self._bal_k, request.num_inference_steps))


class TableBounds:
    """The lowest k of a request's LoRAs in a table that ``swiftdiff sweep-k`` wrote.

    Raises:
        ConfigError: The table cannot be read, or was measured with another scheduler.
    """

    exactness: Exactness = "approximate"

    def __init__(self, path: Path, config: ServingConfig) -> None:
        self._path = str(path)
        self._model = config.model
        self._table = read_bal_table(path)
        self._table.check_scheduler(config.scheduler, self._path)
        self.expected_sha256: Mapping[str, str] = self._table.sha256_of_loras

    def check_model(self, networks: Mapping[str, Any]) -> None:
        """Raise ConfigError if the table was measured with other weights."""
        self._table.check_weights(weights_digest(networks), self._model, self._path)

    def bound_of(self, request: ImageRequest) -> RequestBound:
        """Return the lowest k of the request's LoRAs, and each one's own."""
        return self._table.bound_of(request)


def make_bounds(config: ServingConfig) -> BalBounds:
    """Return what a config's ``bal_k`` means.

    Raises:
        ConfigError: Its table cannot be used.
    """
    switches = config.swiftdiff
    if switches.bal_k == "auto" and switches.bal_table is not None:
        return TableBounds(Path(switches.bal_table), config)
    return FixedBound(switches.bal_k)
