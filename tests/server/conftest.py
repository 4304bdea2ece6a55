"""A store with adapters by name, and a server of held steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from http_server import Running, StepSystem, running, step_config


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An adapter store whose files are empty: the system of these tests does not read them."""
    root = tmp_path / "store"
    for name in ("gold", "neon"):
        (root / "loras").mkdir(parents=True, exist_ok=True)
        (root / "loras" / f"{name}.safetensors").touch()
    (root / "controlnets" / "edges").mkdir(parents=True)
    return root


@pytest.fixture
def system() -> StepSystem:
    """The system that serves."""
    return StepSystem()


@pytest.fixture
def start(tmp_path: Path, store: Path, system: StepSystem) -> Iterator[Callable[..., Running]]:
    """Starts a server with options; it ends with the test."""
    with ExitStack() as stack:

        def begin(**options: Any) -> Running:
            return stack.enter_context(
                running(tmp_path, step_config(store), lambda config: system, **options)
            )

        yield begin
        system.go.set()
