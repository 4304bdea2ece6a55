"""Owns what can be drawn as a figure, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A number and how far to trust it.

    Attributes:
        value: In the figure's unit.
        low: Lower end, None if it is not known.
        high: Upper end, None if it is not known.
        speedup: How many times as fast as the baseline, as it was published; None of the baseline.
    """

    value: float
    low: float | None = None
    high: float | None = None
    speedup: float | None = None

    @property
    def top(self) -> float:
        """Return the highest that is drawn of it."""
        return self.value if self.high is None else max(self.value, self.high)


@dataclass(frozen=True)
class Bars:
    """Seconds by group and series.

    Attributes:
        name: File name without suffix.
        title: Heading.
        groups: Names of the groups, in order.
        series: By name, the baseline first: a number a group, None where there is none.
        spread: What the ends of a number are.
    """

    name: str
    title: str
    groups: tuple[str, ...]
    series: Mapping[str, tuple[Measured | None, ...]]
    spread: str


@dataclass(frozen=True)
class Steps:
    """An ablation: seconds with one more switch on at each step.

    Attributes:
        name: File name without suffix.
        title: Heading.
        steps: What was switched on, and seconds.
    """

    name: str
    title: str
    steps: tuple[tuple[str, Measured], ...]


@dataclass(frozen=True)
class Curves:
    """Lines, some of them faint, on one or two panels that share what is below.

    Attributes:
        name: File name without suffix.
        title: Heading.
        across: What is below.
        panels: By what is on the left: by line, its points.
        emphasis: The line that is drawn strongest, or empty.
        zoomed: Panels whose scale need not begin at 0.
    """

    name: str
    title: str
    across: str
    panels: Mapping[str, Mapping[str, tuple[tuple[float, Measured], ...]]]
    emphasis: str = ""
    zoomed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Points:
    """Systems, each by its speed and its quality.

    Attributes:
        name: File name without suffix.
        title: Heading.
        points: By system: seconds and quality.
    """

    name: str
    title: str
    points: Mapping[str, tuple[float, Measured]]


Figure = Bars | Steps | Curves | Points
