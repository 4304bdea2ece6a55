"""Reads the options that say when requests arrive and which are served: of replay and compare alike."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from swiftdiff.errors import ConfigError

if TYPE_CHECKING:
    from swiftdiff.engine.options import Load, ReplayOptions


def parse_load(
    speed: float | None,
    request_rate: float | None,
    burstiness: float | None,
    max_concurrency: int | None,
    seed: int | None,
) -> Load:
    """Return when requests arrive.

    Raises:
        ConfigError: Options exclude each other, or one is out of range.
    """
    from swiftdiff.engine.options import ClosedLoad, RateLoad, TraceLoad

    ways = {"--speed": speed, "--request-rate": request_rate, "--max-concurrency": max_concurrency}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other; choose one")
    for name, value in (("--burstiness", burstiness), ("--seed", seed)):
        if value is not None and request_rate is None:
            raise ConfigError(f"{name} has a meaning only with --request-rate")
    for name, value in (("--speed", speed), ("--request-rate", request_rate), ("--burstiness", burstiness)):
        can_be_infinite = name == "--request-rate"
        if value is not None and not (value > 0 and (can_be_infinite or math.isfinite(value))):
            allowed = "a number above 0" + (" or inf" if can_be_infinite else "")
            raise ConfigError.for_field(name, value, allowed)
    if request_rate is not None:
        return RateLoad(
            request_rate=request_rate,
            burstiness=1.0 if burstiness is None else burstiness,
            seed=0 if seed is None else seed,
        )
    if max_concurrency is not None:
        return ClosedLoad(max_concurrency=max_concurrency)
    return TraceLoad(speed=1.0 if speed is None else speed)


def parse_options(
    load: Load, limit: int | None, num_warmups: int, goodput: str | None, adapters: str | None
) -> ReplayOptions:
    """Return how a trace is replayed.

    Args:
        load: When requests arrive.
        limit: Of the requests.
        num_warmups: Requests served beforehand.
        goodput: As ``e2el:2000``.
        adapters: As `swiftdiff.adapters.mapping_file.read_rule` takes it.

    Raises:
        ConfigError: ``goodput`` is wrong.
    """
    from swiftdiff.engine.options import ReplayOptions

    slo_ms = None
    if goodput is not None:
        match = re.fullmatch(r"e2el:([0-9]+(?:\.[0-9]+)?)", goodput)
        slo_ms = float(match[1]) if match else 0.0
        if slo_ms <= 0:
            raise ConfigError.for_field(
                "--goodput", goodput, "e2el: and milliseconds above 0, such as e2el:2000"
            )
    return ReplayOptions(load=load, limit=limit, num_warmups=num_warmups, slo_ms=slo_ms, adapters=adapters)
