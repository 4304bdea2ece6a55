"""Fixtures that several folders of tests share; slow imports wait until a test asks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``base/``, ``controlnets/`` and ``loras/`` of random weights: do not write into it."""
    from families import build_family

    return build_family(tmp_path_factory.mktemp("family") / "tiny")


@pytest.fixture
def tiny_family_copy(tiny_family: Path, tmp_path: Path) -> Path:
    """A copy of the tiny family that a test may damage."""
    return Path(shutil.copytree(tiny_family, tmp_path / "tiny-copy"))
