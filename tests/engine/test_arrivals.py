from __future__ import annotations

import itertools
import math
from statistics import fmean, pstdev

import pytest
from fakes import make_request

from swiftdiff.engine.arrivals import schedule
from swiftdiff.engine.options import RateLoad, ReplayOptions, TraceLoad


def _times(load: TraceLoad | RateLoad, at_ms: list[float]) -> list[float]:
    requests = (make_request(f"r{i}", ms) for i, ms in enumerate(at_ms))
    return [arrival.at_s for arrival in schedule(requests, load)]


def test_requests_arrive_when_the_trace_says() -> None:
    assert _times(TraceLoad(), [0, 500, 2500]) == [0, 0.5, 2.5]


def test_speed_two_halves_every_gap() -> None:
    assert _times(TraceLoad(speed=2), [0, 500, 2500]) == [0, 0.25, 1.25]


def test_an_infinite_rate_brings_all_requests_at_once() -> None:
    assert _times(RateLoad(request_rate=math.inf), [0, 500, 2500]) == [0, 0, 0]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_random_gaps_have_the_asked_mean_and_burstiness(burstiness: float) -> None:
    times = _times(RateLoad(request_rate=5, burstiness=burstiness), [0] * 20_000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert fmean(gaps) == pytest.approx(1 / 5, rel=0.05)
    # A gamma distribution with shape k has a standard deviation of mean / sqrt(k).
    assert pstdev(gaps) == pytest.approx(1 / 5 / math.sqrt(burstiness), rel=0.1)


def test_the_same_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    first, again, other = (_times(RateLoad(request_rate=2, seed=seed), [0] * 10) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_schedule_reads_no_further_than_it_is_asked() -> None:
    endless = (make_request(f"r{i}", float(i)) for i in itertools.count())
    arrivals = schedule(endless, TraceLoad())
    assert [next(arrivals).request.request_id for _ in range(3)] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    "load", [TraceLoad(speed=3), RateLoad(request_rate=math.inf), RateLoad(request_rate=2, burstiness=0.5)]
)
def test_options_survive_being_written_as_json(load: TraceLoad | RateLoad) -> None:
    options = ReplayOptions(load=load, limit=3)
    assert ReplayOptions.model_validate_json(options.model_dump_json()) == options
