"""Control images."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with control images."""
    from serving import draw_controls

    return draw_controls(tmp_path_factory.mktemp("controls"))
