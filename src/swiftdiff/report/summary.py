"""Owns every number that is computed of a run's records; percentiles are computed here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from swiftdiff.report.adapters import AdapterTally, AdapterUse, Kind
from swiftdiff.report.latent_cache import LatentCacheTally, LatentCacheUse
from swiftdiff.request import RequestRecord

DEFAULT_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
ALWAYS_REPORTED = (90.0, 95.0, 99.0)  # the keys that other tools' users look for
MAX_FAILURES_SHOWN = 50
QUEUE = "queue"
CLIENT_QUEUE = "client_queue"
STAGE_ORDER = (
    CLIENT_QUEUE,  # before the client sent it, for runs over HTTP
    QUEUE,
    "control_image",
    "controlnet_load",  # stock loads within the request,
    "controlnet_wait",  # other engines beside it: what is left is a wait
    "lora_load",
    "lora_wait",
    "lora_patch",
    "text_encode",
    "cache_search",  # for latents of a similar prompt
    "denoise",
    "preview",  # pictures of unfinished steps, for a server's clients
    "vae_decode",
    "image_encode",  # into an answer
    "server",  # a whole answer of one that does not tell its stages
    "http",  # what an answer took beside the server's own stages
    "image_save",
    "other",
    "restore",  # after delivery: the one stage that is no part of a request's latency
)


class Statistics(BaseModel):
    """A distribution of milliseconds.

    Attributes:
        mean: Arithmetic mean.
        median: 50th percentile.
        std: Standard deviation of the sample; 0 for one value.
        percentiles: By name, such as ``p90``; linear interpolation between ranks.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    std: float
    percentiles: dict[str, float]


class Failure(BaseModel):
    """A request that failed, and why."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    kind: str
    error: str


class Summary(BaseModel):
    """What a run comes to. Warm-up requests are in none of its numbers.

    Attributes:
        duration: Seconds from the first arrival to the last finish.
        completed: Requests that were served.
        failed: Requests that failed.
        num_images: Pictures that were delivered.
        request_throughput: Completed requests a second.
        images_per_s: Pictures a second.
        request_goodput: Completed requests a second that kept their SLO; None if none had one.
        slo_attainment_rate: Share of the requests with an SLO, failed ones too, that kept it; None if none
            had one.
        latency: From scheduled arrival to saved picture, completed requests; None if there are none.
        stages: The parts of that latency (``queue`` is waiting for service), over all completed requests: one
            that lacks a stage counts as 0, so that the means add up. ``restore`` comes after delivery.
        device_seconds_per_image: Device time for which requests, failed ones too, were served, per picture;
            None if it is not known, as over HTTP.
        bytes_loaded: Bytes of adapters fetched.
        adapters: How adapters came, by kind; empty for systems that do not tell.
        latent_cache: What a cache of noisy latents saved; None for systems without.
        graphs_captured: Graphs traced, captured or compiled while requests were served; None for systems that
            do not tell.
        failures: The first of them.
    """

    model_config = ConfigDict(frozen=True)

    duration: float
    completed: int
    failed: int
    num_images: int
    request_throughput: float
    images_per_s: float
    request_goodput: float | None
    slo_attainment_rate: float | None
    latency: Statistics | None
    stages: dict[str, Statistics]
    device_seconds: float
    device_seconds_per_image: float | None
    bytes_loaded: int
    adapters: dict[Kind, AdapterUse] = {}
    latent_cache: LatentCacheUse | None = None
    graphs_captured: int | None = None
    failures: tuple[Failure, ...]

    def to_flat_dict(self) -> dict[str, Any]:
        """Return the numbers under the keys that serving benchmarks share, such as ``p99_e2el_ms``."""
        flat = self.model_dump(exclude={"latency", "stages", "adapters", "latent_cache", "failures"})
        if self.latency is not None:
            flat |= _flatten(self.latency, "e2el")
        flat["stages_ms"] = {name: _stage_dict(each) for name, each in self.stages.items()}
        if self.adapters:
            flat["adapters"] = {kind: use.to_json() for kind, use in self.adapters.items()}
        if self.latent_cache is not None:
            flat["latent_cache"] = self.latent_cache.model_dump()
        flat["failures"] = [failure.model_dump() for failure in self.failures]
        return flat


def summarize(
    records: Iterable[RequestRecord], percentiles: Iterable[float] = DEFAULT_PERCENTILES
) -> Summary:
    """Compute a run's summary.

    Args:
        records: In any order; those with ``warmup`` are passed over.
        percentiles: Each from 0 to 100. 90, 95 and 99 are always computed.
    """
    failures: list[Failure] = []
    adapters, latents = AdapterTally(), LatentCacheTally()
    frame = _read(records, failures, (adapters, latents))
    wanted = tuple(sorted({*percentiles, *ALWAYS_REPORTED}))
    served = frame[frame["ok"]]
    stages = frame.columns[len(_FIELDS) :]
    duration = float(frame["finished_s"].max() - frame["scheduled_s"].min()) if len(frame) else 0.0
    num_images = int(served["num_images"].sum())
    device_seconds = float(frame["device_seconds"].sum())
    captured = frame["graphs_captured"]
    kept, with_slo = int(frame["slo_kept"].sum()), int(frame["has_slo"].sum())
    return Summary(
        duration=duration,
        completed=len(served),
        failed=len(frame) - len(served),
        num_images=num_images,
        request_throughput=_ratio(len(served), duration) or 0.0,
        images_per_s=_ratio(num_images, duration) or 0.0,
        request_goodput=_ratio(kept, duration) if with_slo else None,
        slo_attainment_rate=_ratio(kept, with_slo),
        latency=describe(served["latency_s"], wanted) if len(served) else None,
        stages={name: describe(served[name], wanted) for name in stages} if len(served) else {},
        device_seconds=device_seconds,
        device_seconds_per_image=_ratio(device_seconds, num_images) or None,
        bytes_loaded=int(frame["bytes_loaded"].sum()),
        adapters=adapters.summary(),
        latent_cache=latents.summary(),
        graphs_captured=int(captured.sum()) if captured.notna().any() else None,
        failures=tuple(failures),
    )


def describe(seconds: pd.Series, percentiles: Iterable[float] = DEFAULT_PERCENTILES) -> Statistics:
    """Return a distribution of at least one value, as milliseconds."""
    names = tuple(percentiles)
    milliseconds = seconds * 1000
    quantiles = milliseconds.quantile([p / 100 for p in names])
    return Statistics(
        mean=float(milliseconds.mean()),
        median=float(milliseconds.median()),
        std=float(milliseconds.std()) if len(milliseconds) > 1 else 0.0,
        percentiles={f"p{p:g}": float(q) for p, q in zip(names, quantiles, strict=True)},
    )


def stage_order(name: str) -> tuple[float, str]:
    """Return a stage's place in tables; one that is not known comes before ``other``."""
    return (STAGE_ORDER.index(name) if name in STAGE_ORDER else STAGE_ORDER.index("other") - 0.5, name)


_FIELDS = (
    "ok",
    "scheduled_s",
    "finished_s",
    "latency_s",
    "num_images",
    "device_seconds",
    "bytes_loaded",
    "graphs_captured",
    "has_slo",
    "slo_kept",
)


def _read(
    records: Iterable[RequestRecord],
    failures: list[Failure],
    tallies: Iterable[AdapterTally | LatentCacheTally],
) -> pd.DataFrame:
    """Return a row for each measured record: `_FIELDS`, then seconds by stage in order of happening."""
    rows: list[tuple[float, ...]] = []
    stages: dict[str, list[float]] = {QUEUE: []}
    for record in records:
        if record.warmup:
            continue
        for name, seconds in (_waits(record) | record.stages).items():
            # A stage first seen now was zero in every row so far.
            stages.setdefault(name, []).extend([0.0] * (len(rows) - len(stages[name])))
            stages[name].append(seconds)
        rows.append(_row(record))
        for tally in tallies:
            tally.add(record)
        if record.status == "failed" and len(failures) < MAX_FAILURES_SHOWN:
            failures.append(_failure(record))
    frame = pd.DataFrame(rows, columns=list(_FIELDS)).astype({"ok": bool})
    for name in sorted(stages, key=stage_order):
        frame[name] = stages[name] + [0.0] * (len(rows) - len(stages[name]))
    return frame


def _waits(record: RequestRecord) -> dict[str, float]:
    if record.client_wait_s is None:
        return {QUEUE: record.queue_wait_s}
    return {CLIENT_QUEUE: record.client_wait_s, QUEUE: record.queue_wait_s - record.client_wait_s}


def _row(record: RequestRecord) -> tuple[float, ...]:
    return (
        record.status == "ok",
        record.scheduled_at_s,
        record.finished_at_s,
        record.latency_s,
        record.num_images if record.status == "ok" else 0,
        record.device_seconds,
        record.bytes_loaded,
        math.nan if record.graphs_captured is None else record.graphs_captured,
        record.slo_met is not None,
        record.slo_met is True,
    )


def _failure(record: RequestRecord) -> Failure:
    return Failure(
        request_id=record.request_id, kind=record.error_kind or "", error=record.error or "no reason recorded"
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _flatten(statistics: Statistics, suffix: str) -> dict[str, float]:
    moments = {"mean": statistics.mean, "median": statistics.median, "std": statistics.std}
    return {f"{name}_{suffix}_ms": value for name, value in (moments | statistics.percentiles).items()}


def _stage_dict(statistics: Statistics) -> dict[str, float]:
    return {
        "mean": statistics.mean,
        "median": statistics.median,
        "std": statistics.std,
        **statistics.percentiles,
    }
