"""Decides which measurements fit into the minutes that are left, the most telling first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from swiftdiff.bench.lineup import Contender
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.settings import AdapterSetting

Group = tuple[Contender, ...]


@dataclass(frozen=True)
class Unit:
    """One repeat of one group, in all settings that have no record of it yet.

    Attributes:
        group: Number of the group; 0 is stock and swiftdiff.
        repeat: Which one of the repeats.
        settings: The settings that are left.
    """

    group: int
    repeat: int
    settings: tuple[AdapterSetting, ...]

    @property
    def rank(self) -> tuple[int, int, int]:
        """What comes first: two repeats of the first group, one of each other, then further ones."""
        level = (0 if self.repeat < 2 else 2) if self.group == 0 else (1 if self.repeat == 0 else 3)
        return (level, self.repeat, self.group)


class Costs:
    """Seconds that measurements will take, from those that were made.

    Args:
        measurements: What was recorded so far.
        warmups: Warm-up requests of each setting.
    """

    def __init__(self, measurements: Iterable[Measurement], warmups: int) -> None:
        self._warmups = warmups
        self._seconds: dict[tuple[str, str, AdapterSetting | None], list[float]] = defaultdict(list)
        for each in measurements:
            setting = AdapterSetting.parse(each.setting) if each.setting else None
            seconds = sum(each.stages.values()) if each.purpose == "start" else each.total_s
            if seconds is not None:
                self._seconds[each.purpose, each.system, setting].append(seconds)

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return any(purpose == "measure" for purpose, _, _ in self._seconds)

    def round_s(self, group: Group, setting: AdapterSetting) -> float:
        """Return how long a group's systems take in one setting, one after the other."""
        return sum(self._guess("measure", each.name, setting) for each in group if setting in each.settings)

    def start_s(self, group: Group) -> float:
        """Return how long it takes until a group is warm: its systems start side by side."""
        warm = sum(
            self._guess("warmup", each.name, setting) * self._warmups
            for each in group
            for setting in each.settings
        )
        return max(self._guess("start", each.name, None) for each in group) + warm

    def _guess(self, purpose: str, system: str, setting: AdapterSetting | None) -> float:
        """As it was measured; else as all systems took there; else as they took anywhere."""
        own = self._seconds.get((purpose, system, setting))
        if own:
            return median(own)
        found = self._seconds.items()
        alike = [v for (p, _, s), own in found if (p, s) == (purpose, setting) for v in own]
        alike = alike or [v for (p, _, _), own in found if p == purpose for v in own]
        return mean(alike) if alike else 0.0


def pending_units(groups: Sequence[Group], repeats: int, recorded: Iterable[Measurement]) -> list[Unit]:
    """Return what has no record yet: a setting counts once all systems of a group have one of the repeat."""
    done = {(each.setting, each.system, each.repeat) for each in recorded if each.purpose == "measure"}
    units = []
    for number, group in enumerate(groups):
        settings = dict.fromkeys(setting for each in group for setting in each.settings)
        for repeat in range(repeats):
            left = tuple(each for each in settings if not _is_done(group, each, repeat, done))
            if left:
                units.append(Unit(number, repeat, left))
    return units


def _is_done(group: Group, setting: AdapterSetting, repeat: int, done: set[tuple[str, str, int]]) -> bool:
    return all((setting.name, each.name, repeat) in done for each in group if setting in each.settings)


def fit(
    units: Sequence[Unit], groups: Sequence[Group], costs: Costs, left_s: float, running: int | None
) -> list[Unit]:
    """Return the units that fit into the time left, in the order in which they are worth it.

    Before anything is measured that is the first one alone.

    Args:
        units: What is left to measure.
        groups: The groups.
        costs: What measurements take.
        left_s: Seconds left.
        running: Number of the group that is started already, or None.
    """
    ranked = sorted(units, key=lambda unit: unit.rank)
    if left_s <= 0:
        return []
    if not costs.known:
        return ranked[:1]
    chosen: list[Unit] = []
    started = {running}
    for unit in ranked:
        group = groups[unit.group]
        seconds = sum(costs.round_s(group, setting) for setting in unit.settings)
        if unit.group not in started:
            seconds += costs.start_s(group)
        if seconds <= left_s:
            left_s -= seconds
            started.add(unit.group)
            chosen.append(unit)
    return chosen


def next_unit(chosen: Sequence[Unit], running: int | None) -> Unit | None:
    """Return which one is measured now: all of a group that is started, before the next one starts."""
    return min(chosen, key=lambda unit: (unit.group != running, unit.group, unit.repeat), default=None)


def describe_cut(units: Iterable[Unit], groups: Sequence[Group], repeats: int) -> str:
    """Return a phrase for what is left: how many repeats each system lacks; empty if nothing is left."""
    lacking: dict[str, int] = {}
    for unit in units:
        for each in groups[unit.group]:
            if any(setting in each.settings for setting in unit.settings):
                lacking[each.name] = lacking.get(each.name, 0) + 1
    by_count: dict[int, list[str]] = defaultdict(list)
    for name, count in lacking.items():
        by_count[count].append(name)
    parts = [
        f"{', '.join(names)} lack{'s' if len(names) == 1 else ''} {count} of {repeats} repeats"
        for count, names in sorted(by_count.items())
    ]
    return "; ".join(parts)
