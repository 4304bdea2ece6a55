"""Slots of a KV cache against a plain list of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import RequestError
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.slots import SlotRing

WINDOW = CacheConfig(policy="window", window_blocks=3)
SINK = CacheConfig(policy="window+sink", window_blocks=2, sink_blocks=2)
FULL = CacheConfig(policy="full", max_blocks=3)


class Tracked:
    """A ring, what its slots hold, and the list of blocks that it should hold."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.ring = SlotRing(config)
        self.slots: list[int | None] = [None] * (config.num_slots + 1)
        self.blocks: list[int] = []
        self.next_block = 0

    @property
    def num_sinks(self) -> int:
        return self.config.sink_blocks if self.config.policy == "window+sink" else 0

    def commit(self) -> None:
        self.slots[self.ring.current] = self.next_block
        self.ring.commit()
        self.blocks.append(self.next_block)
        self.next_block += 1
        if len(self.blocks) > self.config.num_slots:
            del self.blocks[self.num_sinks]

    def evict(self) -> None:
        move = self.ring.evict()
        if move is not None:
            self.slots[move[1]] = self.slots[move[0]]
        del self.blocks[self.num_sinks]

    def check(self) -> None:
        assert self.ring.num_blocks == len(self.blocks)
        positions = self.ring.positions()
        assert sorted(positions) == list(range(len(self.blocks) + 1)), "slots in use are not the first ones"
        assert positions[self.ring.current] == len(self.blocks), "the block in the making is not the last"
        for slot, position in enumerate(positions):
            if slot != self.ring.current:
                assert self.slots[slot] == self.blocks[position]


@given(st.sampled_from([WINDOW, SINK]), st.lists(st.sampled_from(["commit", "commit", "evict", "clear"])))
def test_slots_hold_what_a_list_of_blocks_would(config: CacheConfig, actions: list[str]) -> None:
    tracked = Tracked(config)
    for action in actions:
        if action == "commit":
            tracked.commit()
        elif action == "clear":
            tracked.ring.clear()
            tracked.blocks.clear()
        elif len(tracked.blocks) > tracked.num_sinks:
            tracked.evict()
        else:
            with pytest.raises(RequestError, match="no block can be evicted"):
                tracked.ring.evict()
        tracked.check()


def test_sinks_stay_while_the_window_moves_on() -> None:
    tracked = Tracked(SINK)
    for _ in range(20):
        tracked.commit()
        tracked.check()
    assert tracked.blocks == [0, 1, 18, 19]
    assert tracked.ring.num_committed == 20


def test_positions_of_kept_blocks_change_only_when_one_leaves() -> None:
    ring = SlotRing(WINDOW)
    versions = []
    for _ in range(5):
        ring.commit()
        versions.append(ring.version)
    assert versions == [0, 0, 0, 1, 2]


def test_a_full_cache_refuses_one_block_more_and_says_what_to_do() -> None:
    ring = SlotRing(FULL)
    for _ in range(3):
        ring.check_room()
        ring.commit()
    for refused in (ring.check_room, ring.commit):
        with pytest.raises(RequestError, match=r"3 blocks, which is cache\.max_blocks.*window"):
            refused()
    assert ring.num_blocks == 3
