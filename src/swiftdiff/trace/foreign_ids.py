"""Decides which of the things at hand stands behind an adapter id that means nothing here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def stable_choice(foreign_id: str, options: Sequence[str]) -> str:
    """Return the option that belongs to an id: by SHA-256, so the same on every machine and in every run.

    Args:
        foreign_id: Any text.
        options: Not empty; their order does not matter.
    """
    ordered = sorted(options)
    digest = hashlib.sha256(foreign_id.encode()).digest()
    return ordered[int.from_bytes(digest[:8], "big") % len(ordered)]
