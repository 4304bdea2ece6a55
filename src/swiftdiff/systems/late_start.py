"""Lets a stock pipeline begin at a later step than its first, from latents of before that step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swiftdiff.request import ControlNetUse


def begin_at(scheduler: Any, step: int) -> Any:
    """Return a scheduler of another's kind and config whose schedule lacks the first steps.

    Args:
        scheduler: A diffusers scheduler; it is not changed.
        step: The step to begin with.
    """
    kind: Any = type(scheduler)

    class LateScheduler(kind):  # type: ignore[misc]  # diffusers is untyped
        # Pipelines multiply the latents that they are given with it; these have their noise already.
        init_noise_sigma = 1.0

        def set_timesteps(self, *arguments: Any, **named: Any) -> None:
            super().set_timesteps(*arguments, **named)
            for name in ("timesteps", "sigmas"):  # the latter not in all kinds
                if hasattr(self, name):
                    setattr(self, name, getattr(self, name)[step:])

    return LateScheduler.from_config(scheduler.config)


def late_windows(uses: Sequence[ControlNetUse], step: int, num_steps: int) -> list[ControlNetUse]:
    """Return ControlNets with the windows, as shares of the steps that are left, in which they act as before.

    A window that is over gets scale 0: the pipeline accepts no empty one.

    Args:
        uses: A request's ControlNets.
        step: The step to begin with.
        num_steps: Of the request.
    """
    left = num_steps - step
    late = []
    for use in uses:
        acting = [
            i - step
            for i in range(step, num_steps)
            if not (i / num_steps < use.start or (i + 1) / num_steps > use.end)
        ]
        window = (
            {"start": acting[0] / left, "end": (acting[-1] + 1) / left}
            if acting
            else {"scale": 0.0, "start": 0.0, "end": 1.0}
        )
        late.append(use.model_copy(update=window))
    return late
