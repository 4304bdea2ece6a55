"""Tests that an emulated store's times have the stated distribution and never depend on who asks when."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swiftdiff.adapters.emulation import FetchTimes, describe_emulation
from swiftdiff.config import StoreEmulationConfig

JITTERED = StoreEmulationConfig(latency_ms=100, jitter=0.5, seed=7)


def _draws(times: FetchTimes, adapter_id: str, count: int) -> list[float]:
    return [times.draw("lora", adapter_id, 1000) for _ in range(count)]


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    path = tmp_path / "loads.csv"
    path.write_text("kind,load_s\nlora,0.1\nlora,0.2\ncontrolnet,3\nlora,0.4\n")
    return path


def test_without_emulation_fetches_take_no_time() -> None:
    assert FetchTimes(StoreEmulationConfig()).draw("lora", "neon", 10**9) == 0
    assert describe_emulation(StoreEmulationConfig(seed=3)) is None


def test_latency_and_bandwidth_add_up() -> None:
    times = FetchTimes(StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=100))
    assert times.draw("lora", "neon", 5_000_000) == pytest.approx(0.04 + 0.05)


def test_jitter_keeps_the_mean_and_has_the_stated_coefficient_of_variation() -> None:
    drawn = _draws(FetchTimes(JITTERED), "neon", 4000)
    mean = statistics.fmean(drawn)
    assert mean == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(drawn) / mean == pytest.approx(0.5, rel=0.1)
    assert min(drawn) > 0


def test_jitter_varies_the_time_of_the_bytes_too() -> None:
    drawn = _draws(FetchTimes(StoreEmulationConfig(bandwidth_mb_s=1, jitter=0.2)), "neon", 20)
    assert len(set(drawn)) == 20


def test_the_nth_fetch_of_an_adapter_takes_the_same_time_whatever_else_is_fetched() -> None:
    alone = _draws(FetchTimes(JITTERED), "neon", 5)
    busy = FetchTimes(JITTERED)
    mixed = []
    for _ in range(5):
        _draws(busy, "gold", 3)
        busy.draw("controlnet", "neon", 1000)
        mixed += _draws(busy, "neon", 1)
    assert mixed == alone
    assert alone != _draws(FetchTimes(JITTERED), "gold", 5)
    assert alone != _draws(FetchTimes(JITTERED.model_copy(update={"seed": 8})), "neon", 5)


def test_the_draws_of_a_seed_are_the_same_in_every_process_and_release() -> None:
    assert _draws(FetchTimes(JITTERED), "neon", 2) == pytest.approx([0.160997, 0.053062], abs=1e-6)


def test_threads_share_the_draws_of_an_adapter_and_lose_none() -> None:
    times = FetchTimes(JITTERED)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: times.draw("lora", "neon", 1000), range(400)))
    assert sorted(drawn) == sorted(_draws(FetchTimes(JITTERED), "neon", 400))


def test_measured_times_are_drawn_by_kind_and_all_of_them(loads: Path) -> None:
    times = FetchTimes(StoreEmulationConfig(latency_file=str(loads)))
    drawn = _draws(times, "neon", 300)
    assert set(drawn) == {0.1, 0.2, 0.4}
    assert 60 < drawn.count(0.1) < 140
    assert times.draw("controlnet", "edges", 10**9) == 3
    assert _draws(FetchTimes(StoreEmulationConfig(latency_file=str(loads))), "neon", 300) == drawn


def test_the_description_says_all_that_is_emulated(loads: Path) -> None:
    assert describe_emulation(StoreEmulationConfig(latency_ms=40)) == "40 ms latency"
    everything = StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=200, jitter=0.5, seed=2)
    assert describe_emulation(everything) == ("40 ms latency, 200 MB/s, jitter 0.5 (lognormal, seed 2)")
    measured = StoreEmulationConfig(latency_file=str(loads), seed=2)
    assert describe_emulation(measured) == (
        "fetches as measured in loads.csv, controlnet median 3 s of 1, lora median 0.2 s of 3, seed 2"
    )


def test_each_kind_has_its_own_file_and_all_times_are_scaled(loads: Path, tmp_path: Path) -> None:
    controlnets = tmp_path / "controlnets.jsonl"
    controlnets.write_text("6\n8\n")
    config = StoreEmulationConfig(
        lora_latency_file=str(loads), controlnet_latency_file=str(controlnets), latency_scale=0.5
    )
    times = FetchTimes(config)
    assert set(_draws(times, "neon", 300)) == {0.05, 0.1, 0.2}
    assert {times.draw("controlnet", "edges", 1) for _ in range(50)} == {3, 4}
    assert describe_emulation(config) == (
        "fetches as measured in controlnets.jsonl and loads.csv, controlnet median 7 s of 2, "
        "lora median 0.2 s of 3, all × 0.5, seed 0"
    )


def test_a_scale_changes_no_draw_but_its_length(loads: Path) -> None:
    plain = StoreEmulationConfig(latency_file=str(loads))
    scaled = plain.model_copy(update={"latency_scale": 0.25})
    expected = [time * 0.25 for time in _draws(FetchTimes(plain), "neon", 20)]
    assert _draws(FetchTimes(scaled), "neon", 20) == expected
