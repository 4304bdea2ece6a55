"""Owns the approximate switches: for how many steps things are kept, and which noise levels are guided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Approximations:
    """What a denoiser may leave out. As it is made by default it leaves out nothing.

    Attributes:
        controlnet_reuse: Steps for which ControlNets' residuals are used, 1 or more.
        guidance_interval: Noise levels above the first and up to the second are guided; None guides all
            (arXiv 2404.07724).
        step_cache: Steps for which the UNet's deep features are used, 1 or more (arXiv 2312.00858).
    """

    controlnet_reuse: int = 1
    guidance_interval: tuple[float, float] | None = None
    step_cache: int = 1

    @property
    def are_none(self) -> bool:
        """Tell whether nothing is left out, so that pictures are exact."""
        return self == Approximations()


class Kept:
    """Knows when something was computed, and whether a step may use it still.

    Args:
        num_steps: Steps for which it is used, the one that computed it among them.
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._computed_at: int | None = None

    def serves(self, step: int) -> bool:
        """Tell whether a step may use what an earlier one computed."""
        return self._computed_at is not None and 0 < step - self._computed_at < self._num_steps

    def computed(self, step: int) -> None:
        """Note that a step computes it anew."""
        self._computed_at = step
