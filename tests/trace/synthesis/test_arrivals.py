from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from swiftdiff.trace.synthesis.arrivals import Arrivals, arrival_times


def times(number: int, seed: int = 0, resolution_s: float = 0.001, **kind: Any) -> np.ndarray:
    arrivals = Arrivals.model_validate(kind)
    return np.array(list(islice(arrival_times(arrivals, seed, resolution_s), number)))


def test_poisson_gaps_have_the_rate_and_are_exponential() -> None:
    gaps = np.diff(times(20_000, poisson={"rate_per_s": 4.0}))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("shape", "variation"), [(0.25, 2.0), (4.0, 0.5)])
def test_a_gamma_shape_below_one_is_bursty_and_above_one_even(shape: float, variation: float) -> None:
    gaps = np.diff(times(20_000, gamma={"rate_per_s": 2.0, "shape": shape}))
    assert gaps.mean() == pytest.approx(0.5, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.08)


def test_a_daily_curve_shows_in_the_counts_of_its_slots_from_where_it_starts() -> None:
    day = {"rate_per_s": 1.0, "curve": (1.0, 3.0, 0.0, 4.0), "period_s": 400.0, "start_s": 100.0}
    arrived = times(40_000, diurnal=day)
    slots = np.bincount(((arrived + 100.0) % 400 // 100).astype(int), minlength=4)
    assert slots[2] == 0
    assert slots / slots.sum() == pytest.approx([1 / 8, 3 / 8, 0, 4 / 8], abs=0.01)
    assert len(arrived) / arrived[-1] == pytest.approx(1.0, rel=0.03)


def test_drift_makes_slots_differ_from_day_to_day() -> None:
    def dispersion(drift: float) -> float:
        day = {"rate_per_s": 1.0, "curve": (1.0, 1.0), "period_s": 200.0, "drift": drift}
        counts = np.bincount((times(20_000, diurnal=day) // 100).astype(int))[:-1]
        return float(counts.var() / counts.mean())

    assert dispersion(0.0) < 1.5
    assert dispersion(0.8) > 10


def test_on_and_off_alternate_between_rushes_and_silence() -> None:
    burst = {"on_rate_per_s": 10.0, "off_rate_per_s": 0.0, "mean_on_s": 5.0, "mean_off_s": 50.0}
    gaps = np.diff(times(10_000, on_off=burst))
    assert np.median(gaps) < 0.1
    assert gaps.max() > 50


def test_gaps_come_out_as_their_quantiles_say_in_whole_steps_of_the_clock() -> None:
    table = {"probabilities": (0.0, 0.5, 1.0), "seconds": (0.0, 10.0, 110.0), "persistence": 0.9}
    gaps = np.diff(times(20_000, resolution_s=1.0, gaps={**table, "persistent_share": 0.5}))
    assert np.allclose(gaps, np.round(gaps))
    assert np.mean(gaps < 10) == pytest.approx(0.5, abs=0.02)
    assert np.mean(gaps < 60) == pytest.approx(0.75, abs=0.02)


def test_persistence_makes_gaps_resemble_the_ones_before() -> None:
    def correlation(share: float) -> float:
        table = {"probabilities": (0.0, 1.0), "seconds": (0.0, 10.0), "persistence": 0.98}
        gaps = np.diff(times(10_000, gaps={**table, "persistent_share": share}))
        return float(np.corrcoef(gaps[:-1], gaps[1:])[0, 1])

    assert abs(correlation(0.0)) < 0.05
    assert correlation(0.6) > 0.4


@pytest.mark.parametrize(
    "kind",
    [
        {"poisson": {"rate_per_s": 1.0}},
        {"on_off": {"on_rate_per_s": 5.0, "mean_on_s": 1.0, "mean_off_s": 9.0}},
        {"gaps": {"probabilities": (0.0, 1.0), "seconds": (0.0, 3.0)}},
    ],
)
def test_a_seed_decides_everything_and_time_never_goes_back(kind: dict[str, Any]) -> None:
    first = times(5000, seed=7, **kind)
    assert np.array_equal(first, times(5000, seed=7, **kind))
    assert not np.array_equal(first, times(5000, seed=8, **kind))
    assert np.all(np.diff(first) >= 0)
