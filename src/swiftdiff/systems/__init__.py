"""Systems that serve a trace, one file each; a new one is a line in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable

from swiftdiff.config import ServingConfig
from swiftdiff.systems.base import Served, ServingSystem

__all__ = ["ENGINES", "Served", "ServingSystem", "build_system"]


def _diffusers(config: ServingConfig) -> ServingSystem:
    from swiftdiff.models.quiet import quiet_libraries

    with quiet_libraries():
        from swiftdiff.systems.diffusers import DiffusersSystem

    return DiffusersSystem(config)


def _swiftdiff(config: ServingConfig) -> ServingSystem:
    from swiftdiff.models.quiet import quiet_libraries

    with quiet_libraries():
        from swiftdiff.systems.swiftdiff import SwiftdiffSystem

        return SwiftdiffSystem(config)


def _nirvana(config: ServingConfig) -> ServingSystem:
    from swiftdiff.models.quiet import quiet_libraries

    with quiet_libraries():
        from swiftdiff.systems.nirvana import NirvanaSystem

    return NirvanaSystem(config)


# Factories import their system when called: choosing one must not cost the imports of all.
ENGINES: dict[str, Callable[[ServingConfig], ServingSystem]] = {
    "diffusers": _diffusers,
    "swiftdiff": _swiftdiff,
    "nirvana": _nirvana,
}


def build_system(config: ServingConfig) -> ServingSystem:
    """Return the system that ``config`` describes, its model loaded.

    Raises:
        ModelError: The model is missing or damaged.
        AdapterError: The adapter store cannot be opened.
    """
    return ENGINES[config.engine](config)
