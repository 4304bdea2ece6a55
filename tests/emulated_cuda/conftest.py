"""GPUs for tests: emulated ones, which fail a test if a real one could have computed something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulated_cuda import emulated_cuda
from emulated_streams import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    with emulated_cuda() as machine:
        yield machine
