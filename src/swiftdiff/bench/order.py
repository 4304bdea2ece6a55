"""Decides in which order systems take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def take_turns(items: Sequence[Item], turn: int) -> list[Item]:
    """Return all items in the order of one turn, so that slow drifts of the machine meet all alike.

    Over ``2 * len(items)`` turns each is at each place twice; every other turn goes backwards, so that none
    always follows the same one.
    """
    if not items:
        return []
    first = (turn // 2) % len(items)
    turned = [*items[first:], *items[:first]]
    return turned[::-1] if turn % 2 else turned


def interleave(rounds: int, cases: Sequence[Item]) -> Iterator[tuple[int, int, Item]]:
    """Yield (round, turn, case): all cases in each round, turns counted on so that neither round nor case
    fixes who begins.
    """
    for index in range(rounds):
        for place, case in enumerate(cases):
            yield index, index + place, case
