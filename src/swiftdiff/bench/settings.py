"""Owns the adapter settings: how many ControlNets and LoRAs a measured request has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from swiftdiff.errors import ConfigError

_NAME = re.compile(r"(\d)C/(\d)L", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class AdapterSetting:
    """A number of ControlNets and of LoRAs, written as in the paper: ``2C/1L``."""

    num_controlnets: int
    num_loras: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2C/1L``.

        Raises:
            ConfigError: It is written otherwise.
        """
        match = _NAME.fullmatch(text.strip())
        if match is None:
            allowed = "numbers of ControlNets and LoRAs, such as 2C/1L"
            raise ConfigError.for_field("--setting", text, allowed)
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """How the paper writes it."""
        return f"{self.num_controlnets}C/{self.num_loras}L"


# Katz (arXiv 2407.02031), section 6.
PAPER_SETTINGS = tuple(
    AdapterSetting(*numbers) for numbers in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (3, 0), (3, 2))
)
