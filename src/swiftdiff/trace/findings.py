"""Collects what is wrong in a trace by kind, so that a million mistakes take no more room than a hundred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MAX_LINES = 5
MAX_KINDS = 100
OTHER = "further kinds of mistakes"

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One kind of mistake.

    Attributes:
        severity: An ``error`` is refused by the reader, or fails its request; a ``warning`` may be meant.
        kind: What is wrong, without the values that differ from line to line.
        count: How often.
        lines: The first `MAX_LINES` lines with it; none if it is about the whole file.
        example: The first occurrence in full.
    """

    severity: Severity
    kind: str
    count: int
    lines: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class TraceReport:
    """Everything that is wrong in a trace.

    Attributes:
        path: The file.
        num_lines: Lines read, blank ones too.
        num_requests: Lines that are requests, in themselves without mistakes.
        complete: False if the file could not be read to its end, or the errors were too many.
        findings: Errors first, each in order of their first line.
    """

    path: Path
    num_lines: int
    num_requests: int
    complete: bool
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Return how many errors or warnings there are."""
        return sum(finding.count for finding in self.findings if finding.severity == severity)


class _Kind:
    def __init__(self, example: str) -> None:
        self.count = 0
        self.lines: list[int] = []
        self.example = example


class Findings:
    """Mistakes so far."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[Severity, str], _Kind] = {}
        self.num_errors = 0

    def add(self, severity: Severity, kind: str, line: int | None, example: str) -> None:
        """Count a mistake; beyond `MAX_KINDS` kinds it is counted as `OTHER`."""
        key = (severity, kind)
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key = (severity, OTHER)
        found = self._kinds.setdefault(key, _Kind(example))
        found.count += 1
        if line is not None and len(found.lines) < MAX_LINES:
            found.lines.append(line)
        self.num_errors += severity == "error"

    def finish(self) -> tuple[Finding, ...]:
        """Return them, errors first, each in order of their first line."""
        found = [
            Finding(severity, kind, each.count, tuple(each.lines), each.example)
            for (severity, kind), each in self._kinds.items()
        ]
        return tuple(sorted(found, key=lambda each: (each.severity, each.lines[:1])))
