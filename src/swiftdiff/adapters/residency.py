"""Decides which adapters stay in memory: a byte budget, least recently or least often used out first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

EvictionPolicy = Literal["lru", "lfu"]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class CacheStats:
    """Counts since the cache was made.

    Attributes:
        hits: Look-ups that found their adapter.
        misses: Look-ups that did not.
        evictions: Adapters put out.
        used_bytes: Bytes in the cache now.
        peak_bytes: The most there ever were.
    """

    hits: int
    misses: int
    evictions: int
    used_bytes: int
    peak_bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that found their adapter; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


class _Entry(Generic[_Value]):
    def __init__(self, value: _Value, num_bytes: int) -> None:
        self.value = value
        self.num_bytes = num_bytes
        self.pins = 0
        self.uses = 0
        self.last_use = 0


class AdapterCache(Generic[_Value]):
    """Adapters by id. What is pinned is in use and stays, even over the budget; it goes when it is unpinned.

    Pure bookkeeping, for one thread at a time: `loading.AdapterLoader` guards it.

    Args:
        budget_bytes: How much unpinned adapters may fill the cache up to; 0 keeps nothing that is not in use,
            None is no limit.
        policy: ``lru`` puts out the least recently used, ``lfu`` the least often used since it came in.
    """

    def __init__(self, budget_bytes: int | None, policy: EvictionPolicy = "lru") -> None:
        self._budget = budget_bytes
        self._policy = policy
        self._entries: dict[str, _Entry[_Value]] = {}
        self._tick = 0
        self._hits = self._misses = self._evictions = self._used = self._peak = 0

    def __contains__(self, adapter_id: str) -> bool:
        return adapter_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def stats(self) -> CacheStats:
        """Counts so far."""
        return CacheStats(self._hits, self._misses, self._evictions, self._used, self._peak)

    def pin(self, adapter_id: str) -> _Value | None:
        """Look an adapter up and keep it until `unpin`; None, and nothing pinned, if it is not here."""
        entry = self._entries.get(adapter_id)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._use(entry)
        return entry.value

    def put(self, adapter_id: str, value: _Value, num_bytes: int, pins: int = 0) -> None:
        """Add an adapter that is not here yet, pinned ``pins`` times; others may have to go."""
        if adapter_id in self._entries:
            raise ValueError(f"{adapter_id!r} is in the cache already")
        entry = self._entries[adapter_id] = _Entry(value, num_bytes)
        self._used += num_bytes
        self._peak = max(self._peak, self._used)
        self._use(entry, pins)
        self._evict()

    def unpin(self, adapter_id: str) -> None:
        """Give back one `pin`."""
        entry = self._entries[adapter_id]
        if entry.pins < 1:
            raise ValueError(f"{adapter_id!r} is not pinned")
        entry.pins -= 1
        self._evict()

    def clear(self) -> None:
        """Forget everything, also what is pinned."""
        self._entries.clear()
        self._used = 0

    def _use(self, entry: _Entry[_Value], pins: int = 1) -> None:
        self._tick += 1
        entry.pins += pins
        entry.uses += 1
        entry.last_use = self._tick

    def _evict(self) -> None:
        while self._budget is not None and self._used > self._budget:
            idle = [(self._rank(entry), name) for name, entry in self._entries.items() if not entry.pins]
            if not idle:
                return
            entry = self._entries.pop(min(idle)[1])
            self._used -= entry.num_bytes
            self._evictions += 1

    def _rank(self, entry: _Entry[_Value]) -> tuple[int, int]:
        return (entry.uses if self._policy == "lfu" else 0, entry.last_use)
