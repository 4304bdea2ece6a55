"""What tests of worlds share: a random world small enough for every test."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from swiftdiff.world.loading import WorldModel


@pytest.fixture(scope="session")
def tiny_world() -> Callable[[int], WorldModel]:
    """Call it with a seed for a world of random weights, shared by all tests: do not change its weights."""
    from tiny_world import build_tiny_world

    return lru_cache(maxsize=4)(build_tiny_world)


@pytest.fixture(scope="session")
def tiny_world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world of seed 0 as a folder: do not write into it."""
    from tiny_world import save_tiny_world

    return save_tiny_world(tmp_path_factory.mktemp("world") / "tiny")
