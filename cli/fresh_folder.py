"""Decides where results go if the user names no folder."""

from __future__ import annotations

import itertools
from pathlib import Path


def fresh_folder(name: str) -> Path:
    """Return a folder below ``results/`` that does not exist yet: the name, and a number if it is taken."""
    candidates = (Path("results") / (name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(folder for folder in candidates if not folder.exists())
