"""Decides which slot of a KV cache holds which block, and where it stands in what a block sees. No torch."""

from __future__ import annotations

from swiftdiff.errors import RequestError
from swiftdiff.world.config import CacheConfig


class SlotRing:
    """The slots of one cache: the past's blocks in order, and one for the block in the making.

    The past's slots and the current block's together are always the first ``num_blocks + 1`` slots, so that
    attention reads one contiguous range. A finished block stays where it was made; the slot of the block
    that it pushes out is the next one's.

    Args:
        config: Says how many blocks are kept, and which.

    Attributes:
        current: Slot of the block in the making.
        num_committed: Blocks that were ever committed.
        version: Grows whenever a kept block's position changes.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._num_kept = config.num_slots
        self._num_sinks = config.sink_blocks if config.policy == "window+sink" else 0
        self._evicts = config.policy != "full"
        self._order: list[int] = []
        self.current = 0
        self.num_committed = 0
        self.version = 0

    @property
    def num_blocks(self) -> int:
        """Blocks of the past that are kept."""
        return len(self._order)

    def positions(self) -> list[int]:
        """Return the position of each slot in use, counted in blocks from the oldest one's 0.

        Sinks are the first, the block in the making is the last: positions are relative to the window, so
        they stay small however long the clip is.
        """
        places = {slot: position for position, slot in enumerate((*self._order, self.current))}
        return [places[slot] for slot in range(len(places))]

    def check_room(self) -> None:
        """Check that one more block can be made.

        Raises:
            RequestError: The policy keeps every block, and all slots are taken.
        """
        if not self._evicts and len(self._order) == self._num_kept:
            raise RequestError(
                f"the clip has its {self._num_kept} blocks, which is cache.max_blocks: allow more, or use "
                "cache.policy window, under which a clip has no longest length"
            )

    def commit(self) -> None:
        """Keep the block in the making; when all slots are taken, the oldest that may go gives up its own.

        Raises:
            RequestError: None may go, because the policy keeps every block.
        """
        self.check_room()
        if len(self._order) < self._num_kept:
            self._order.append(self.current)
            self.current = len(self._order)
        else:
            freed = self._order.pop(self._num_sinks)
            self._order.append(self.current)
            self.current = freed
            self.version += 1
        self.num_committed += 1

    def evict(self) -> tuple[int, int] | None:
        """Forget the oldest block that is no sink.

        Returns:
            The slot to copy from and the one to copy to, where one must move to keep the range contiguous.

        Raises:
            RequestError: There is no block that may go.
        """
        if len(self._order) <= self._num_sinks:
            raise RequestError(
                f"no block can be evicted: {len(self._order)} are kept, of which sinks are {self._num_sinks}"
            )
        last = len(self._order)  # of the range in use
        freed = self._order.pop(self._num_sinks)
        self.version += 1
        if self.current == last:
            self.current = freed
            return None
        if freed != last:
            self._order[self._order.index(last)] = freed
            return last, freed
        return None

    def clear(self) -> None:
        """Forget everything."""
        self._order.clear()
        self.current = 0
        self.num_committed = 0
        self.version += 1
