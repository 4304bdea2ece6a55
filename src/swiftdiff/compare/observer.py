"""Is told how a comparison goes. Imports nothing that is slow to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """A request of the run was served or failed; ``total`` of the run's."""

    done: int
    total: int
    failed: int


class CompareObserver:
    """Is told how a comparison goes; this one keeps quiet. Made to be overridden."""

    def noted(self, message: str) -> None:
        """Something that a user should see."""

    def running(self, what: str) -> None:
        """A run is about to be made."""

    def served(self, what: str, served: Served) -> None:
        """A request of it was served or failed."""
