"""An artist that renders what it is asked for, so that evaluations are tested without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from swiftdiff.quality.plan import PictureSet, Sample
from swiftdiff.scenes import Scene, render, render_style


def _as_asked(scene: Scene) -> Scene:
    return scene


@dataclass
class RenderingArtist:
    """Renders scenes, in the LoRA's style where a set has one; `change` alters what is drawn of the base."""

    controlnets: tuple[str, ...] = ("edges", "depth", "layout")
    loras: tuple[str, ...] = ("gold",)
    side: int = 128
    weights: str = "first"
    change: Callable[[Scene], Scene] = _as_asked
    stop_after: int | None = None
    drawn: list[tuple[str, int]] = field(default_factory=list)

    def key(self, picture_set: PictureSet) -> str:
        return f"{self.weights}-{picture_set.name}"

    def draw(self, picture_set: PictureSet, samples: Sequence[Sample]) -> list[np.ndarray]:
        if self.stop_after is not None and len(self.drawn) >= self.stop_after:
            raise KeyboardInterrupt
        self.drawn += [(picture_set.name, item.index) for item in samples]
        scenes = [self.change(item.scene) for item in samples]
        if picture_set.lora:
            return list(render_style(picture_set.lora, scenes, self.side))
        return list(render(scenes, self.side))


@pytest.fixture
def rendering_artist() -> type[RenderingArtist]:
    """The class; call it to make one."""
    return RenderingArtist
