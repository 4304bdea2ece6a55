"""Owns randomness: a stream of its own for each concern, so that changing one leaves the others alone."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, concern: str) -> np.random.Generator:
    """Return the random numbers of one concern, such as ``arrivals`` or ``loras.scale``.

    Equal seeds and names give equal numbers, in every process and on every machine.

    Args:
        seed: The trace's, at least 0.
        concern: Its name; different names give independent numbers.
    """
    digest = hashlib.sha256(concern.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
