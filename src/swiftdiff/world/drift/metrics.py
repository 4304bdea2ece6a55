"""Decides which metrics a model's clips are judged by."""

from __future__ import annotations

from swiftdiff.world.drift.error import Metric
from swiftdiff.world.drift.proxies import PROXIES
from swiftdiff.world.drift.scenes import BOUNCE
from swiftdiff.world.loading import WorldModel


def metrics_for(model: WorldModel) -> dict[str, Metric]:
    """Return the proxies and, for bounce, how its physics is kept, by name."""
    if model.settings.prompt_encoder != BOUNCE:
        return dict(PROXIES)
    from swiftdiff.world.drift.physics import RESIDUALS

    return {**PROXIES, **RESIDUALS}
