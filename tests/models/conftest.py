"""A random-weight SDXL and its family on disk, made once for all tests of models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import StableDiffusionXLPipeline

from swiftdiff.models.family import materialize_preset
from swiftdiff.models.presets import build_preset


@pytest.fixture(scope="session")
def thin() -> StableDiffusionXLPipeline:
    """``sdxl-thin`` with seed 0: do not change its weights."""
    return build_preset("sdxl-thin")


@pytest.fixture(scope="session")
def thin_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of ``sdxl-thin`` on disk: do not write into it."""
    return materialize_preset("sdxl-thin", tmp_path_factory.mktemp("families") / "thin", loras=4)


@pytest.fixture
def copy_of(thin_family: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder of the family, such as ``base``, to where a test may damage it."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(thin_family / name, tmp_path / Path(name).name))

    return copy
