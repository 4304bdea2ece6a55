"""Decides whether an id was seen before, at eight bytes an id: a million ids take 8 MB instead of 100."""

from __future__ import annotations

import numpy as np

_RECENT = 1 << 16


class SeenIds:
    """A set of ids of which only 64-bit hashes are kept: a recent few in a set, the rest in a sorted array.

    Two of a million different ids share a hash with odds of about one in 10^7, so who is told that an id was
    seen must look for it before acting on that.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older = np.empty(0, dtype=np.int64)

    def add(self, request_id: str) -> bool:
        """Add an id; return False if it, or one with the same hash, was added before."""
        key = hash(request_id)
        if key in self._recent:
            return False
        at = int(np.searchsorted(self._older, key))
        if at < len(self._older) and int(self._older[at]) == key:
            return False
        self._recent.add(key)
        if len(self._recent) >= max(_RECENT, len(self._older) // 16):
            recent = np.fromiter(self._recent, dtype=np.int64, count=len(self._recent))
            self._older = np.concatenate([self._older, recent])
            self._older.sort()
            self._recent.clear()
        return True
