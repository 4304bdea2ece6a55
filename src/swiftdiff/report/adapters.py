"""Owns what a run's records say of its adapters: how many came from memory, and what the others cost."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from swiftdiff.request import AdapterRecord, RequestRecord

Kind = Literal["lora", "controlnet"]
# Stages in which a request stands still for its adapters: stock loads in the request, other engines wait.
WAITING_STAGES: dict[Kind, tuple[str, str]] = {
    "lora": ("lora_load", "lora_wait"),
    "controlnet": ("controlnet_load", "controlnet_wait"),
}


class AdapterUse(BaseModel):
    """How the LoRAs, or the ControlNets, of a run came to its requests.

    Attributes:
        uses: Adapters that requests named, counted each time.
        from_cache: Uses whose adapter was in memory.
        from_store: Uses for which it was read.
        shared: Uses for which another request was reading it already.
        bytes_loaded: Bytes read.
        mean_load_ms: From a request's arrival at the system until its adapter was ready, over the uses that
            were not in memory; None if all were.
        mean_wait_ms: For how long a served request with such adapters stood still until they were there; None
            if none was served.
        steps_patched: Lowest, median and highest of the steps at which it was patched; None if none was.
        bal_k: Lowest, median and highest of what a ``bal_table`` let LoRAs be late by; None without one.
        not_in_bal_table: Uses that had to be there at step 0 because the table did not cover them; None
            without one.
    """

    model_config = ConfigDict(frozen=True)

    uses: int
    from_cache: int
    from_store: int
    shared: int
    bytes_loaded: int
    mean_load_ms: float | None
    mean_wait_ms: float | None
    steps_patched: tuple[int, float, int] | None
    bal_k: tuple[int, float, int] | None = None
    not_in_bal_table: int | None = None

    @property
    def hit_rate(self) -> float:
        """Share of the uses whose adapter was in memory."""
        return self.from_cache / self.uses

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for ``summary.json``."""
        return {**self.model_dump(), "hit_rate": self.hit_rate}


class AdapterTally:
    """Collects what records say of their adapters."""

    def __init__(self) -> None:
        self._records: dict[Kind, list[AdapterRecord]] = {"lora": [], "controlnet": []}
        self._waits_s: dict[Kind, list[float]] = {"lora": [], "controlnet": []}

    def add(self, record: RequestRecord) -> None:
        """Count a request's adapters."""
        for adapter in record.adapters:
            self._records[adapter.kind].append(adapter)
        if record.status == "ok":
            for kind in {adapter.kind for adapter in record.adapters}:
                self._waits_s[kind].append(waited_s(record, kind))

    def summary(self) -> dict[Kind, AdapterUse]:
        """Return the uses by kind; a kind that no record told of is left out."""
        return {
            kind: _summarize(records, self._waits_s[kind])
            for kind, records in self._records.items()
            if records
        }


def waited_s(record: RequestRecord, kind: Kind) -> float:
    """Return the seconds for which a request stood still until its adapters of a kind were there."""
    return sum(record.stages.get(stage, 0.0) for stage in WAITING_STAGES[kind])


def _summarize(records: list[AdapterRecord], waits_s: list[float]) -> AdapterUse:
    sources = [record.source for record in records]
    loads_s = [record.load_s for record in records if record.source != "cache"]
    steps = [record.step_patched for record in records if record.step_patched is not None]
    bounds = [record.bal_k for record in records if record.bal_k is not None]
    return AdapterUse(
        uses=len(records),
        from_cache=sources.count("cache"),
        from_store=sources.count("store"),
        shared=sources.count("shared"),
        bytes_loaded=sum(record.bytes_loaded for record in records),
        mean_load_ms=_mean_ms(loads_s),
        mean_wait_ms=_mean_ms(waits_s),
        steps_patched=_spread(steps),
        bal_k=_spread(bounds),
        not_in_bal_table=sum(record.bal_note is not None for record in records) if bounds else None,
    )


def _spread(steps: list[int]) -> tuple[int, float, int] | None:
    return (min(steps), float(statistics.median(steps)), max(steps)) if steps else None


def _mean_ms(seconds: list[float]) -> float | None:
    return statistics.fmean(seconds) * 1000 if seconds else None
