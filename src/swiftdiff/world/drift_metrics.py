"""Decides which metrics a model's clips are judged by."""

from __future__ import annotations

from swiftdiff.world.drift import Metric
from swiftdiff.world.drift_proxies import PROXIES
from swiftdiff.world.drift_scenes import BOUNCE
from swiftdiff.world.loading import WorldModel


def metrics_for(model: WorldModel) -> dict[str, Metric]:
    """Return the proxies and, for bounce, how its physics is kept, by name."""
    if model.settings.prompt_encoder != BOUNCE:
        return dict(PROXIES)
    from swiftdiff.world.drift_physics import RESIDUALS

    return {**PROXIES, **RESIDUALS}
