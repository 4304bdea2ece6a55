"""Turns a source's arrival times into milliseconds and notices where their unit changes."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from swiftdiff.errors import TraceError

from .options import TimeUnit

_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# Moments since 1970 in seconds lie from 1973 to 5138 in this range; each finer unit is 1000 times as large.
_EPOCH = (1e8, 1e11)
MAX_GAP_MS = 365 * 86_400_000.0


class Clock:
    """Reads arrival times of one source, all of one kind: numbers in one unit, or dates with times.

    Args:
        unit: Of numbers; None detects it from the first, by its size if it counts from 1970.
        relative_unit: Of numbers that are too small to count from 1970, where the format fixes it.
    """

    def __init__(self, unit: TimeUnit | None, relative_unit: TimeUnit | None) -> None:
        self._chosen = unit
        self._relative = relative_unit
        self._unit: str | None = None  # decided by the first: a unit, or how its date is written
        self._counts_from_1970 = False

    @property
    def kind(self) -> str:
        """What the times are, in words."""
        return _NAMES.get(self._unit or "", self._unit or "none")

    def milliseconds(self, value: object, where: str) -> float:
        """Return a time in milliseconds from whatever moment the source counts from.

        Raises:
            TraceError: It is no time, its unit cannot be told, or differs from the first one's.
        """
        moment = _number(value)
        if moment is None:
            return self._from_date(value, where)
        epoch_unit = _epoch_unit(moment)
        if self._unit is None:
            self._unit = self._chosen or epoch_unit or self._relative
            self._counts_from_1970 = epoch_unit is not None and self._unit == epoch_unit
            if self._unit is None:
                raise TraceError(
                    f"{where}: timestamp is {value!r}, which does not tell its unit; "
                    "give --time-unit s, ms, us or ns"
                )
        if self._unit not in _MS:
            raise _mixed(value, "a number", self.kind, where)
        if self._counts_from_1970 and epoch_unit not in (None, self._unit):
            raise _mixed(value, _NAMES[str(epoch_unit)], self.kind, where)
        return moment * _MS[self._unit]

    def _from_date(self, value: object, where: str) -> float:
        try:
            moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None:
            allowed = "a number, or a date and time such as 2024-11-15 16:57:50"
            raise TraceError.for_field("timestamp", value, allowed, where)
        kind = "dates without a time zone" if moment.tzinfo is None else "dates with a time zone"
        self._unit = self._unit or kind
        if self._unit != kind:
            raise _mixed(value, kind, self.kind, where)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def check_order(previous_ms: float, now_ms: float, where: str) -> None:
    """Check that an arrival is not before the one before it, nor a year later.

    Raises:
        TraceError: It is; then the file is unsorted, or its unit changes here.
    """
    if now_ms < previous_ms:
        raise TraceError(
            f"{where}: timestamp goes back by {_duration(previous_ms - now_ms)}; "
            "sort the file or use --sort, unless its time unit changes here"
        )
    if now_ms - previous_ms > MAX_GAP_MS:
        gap = _duration(now_ms - previous_ms)
        raise TraceError(
            f"{where}: timestamp is {gap} after the one before it; does the time unit change here, or is "
            "--time-unit wrong?"
        )


def _number(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _epoch_unit(moment: float) -> TimeUnit | None:
    low, high = _EPOCH
    units: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
    return next((u for i, u in enumerate(units) if low * 1000**i <= abs(moment) < high * 1000**i), None)


def _mixed(value: object, kind: str, first: str, where: str) -> TraceError:
    return TraceError(
        f"{where}: timestamp is {value!r}, which looks like {kind}, but the first one was {first}; "
        "a trace has one time unit"
    )


def _duration(ms: float) -> str:
    for unit, size in (("days", 86_400_000.0), ("hours", 3_600_000.0), ("s", 1000.0)):
        if ms >= size:
            return f"{ms / size:.3g} {unit}" if ms / size < 1e6 else f"{ms / size:.1e} {unit}"
    return f"{ms:g} ms"
