"""Owns what is told of a benchmark while it runs."""

from __future__ import annotations


class BenchObserver:
    """Is told how a benchmark goes; this one keeps quiet. Made to be overridden."""

    def noted(self, message: str) -> None:
        """Something that its user should read."""

    def doing(self, what: str) -> None:
        """What goes on now."""

    def progressed(self, done: int, total: int, left_s: float) -> None:
        """So many measurements are on disk; the rest takes about so long."""
