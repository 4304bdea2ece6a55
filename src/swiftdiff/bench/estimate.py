"""Guesses how long what is left will take."""

from __future__ import annotations

from collections.abc import Iterable

from swiftdiff.bench.lineup import STOCK
from swiftdiff.bench.settings import AdapterSetting

Cell = tuple[str, str, AdapterSetting, str]  # model, view, setting, system

_STEP_S = {"shapes": 0.05, "sdxl-thin": 0.15}  # of stock on two cores
_LORA_S = {"shapes": 0.4, "sdxl-thin": 2.0}
_STARTUP_S = 12.0  # of each system: its process, imports, model, and the first request of each kind


class Estimate:
    """Seconds that measurements take: as last measured, else by rule, corrected by what was measured so far.

    Args:
        steps: Denoising steps of a request.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._measured: dict[Cell, float] = {}

    def learn(self, cell: Cell, seconds: float) -> None:
        """Note what a measurement took."""
        self._measured[cell] = seconds

    def total_s(self, cells: Iterable[Cell], startups: int = 0) -> float:
        """Return the seconds for measuring ``cells``, after starting so many systems."""
        guessed = sum(self._by_rule(cell) for cell in self._measured)
        factor = sum(self._measured.values()) / guessed if guessed else 1.0
        seconds = (self._measured.get(cell) or self._by_rule(cell) * factor for cell in cells)
        return sum(seconds) + startups * _STARTUP_S

    def _by_rule(self, cell: Cell) -> float:
        model, view, setting, system = cell
        step_s = _STEP_S.get(model, max(_STEP_S.values()))
        step_s *= 1 + 0.45 * setting.num_controlnets
        lora_s = _LORA_S.get(model, max(_LORA_S.values())) * setting.num_loras
        if system == STOCK:
            return self._steps * step_s * (1.6 if view == "one-core" else 1.0) + lora_s
        return self._steps * step_s * (0.55 if system.startswith("swiftdiff") else 0.9) + 0.05 * lora_s
