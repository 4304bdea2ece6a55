"""Tests that an emulated store's times have the stated distribution and never depend on who asks when."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swiftdiff.adapters.emulation import FetchTimes, describe_emulation, read_measurements
from swiftdiff.config import StoreEmulationConfig
from swiftdiff.errors import ConfigError

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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "load_s\n0.5\n1.5\n"),
        ("a.csv", "\ufeffkind, load_s\r\n,0.5\r\n,1.5\r\n"),
        ("a.jsonl", "0.5\n\n1.5\n"),
        ("a.JSONL", '{"load_s": 0.5}\n{"load_s": 1.5, "kind": null}'),
        ("a.json", '[0.5, {"load_s": 1.5}]'),
    ],
)
def test_each_form_of_file_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert read_measurements(path).seconds == {"controlnet": (0.5, 1.5), "lora": (0.5, 1.5)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", None, "No such file"),
        ("a.txt", "0.5", r"its name must end in \.csv, \.jsonl or \.json"),
        ("a.csv", "", "is empty"),
        ("a.csv", "load_s\n", "is empty"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.json", " ", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.csv", "load_s\n1\n-1\n", "line 3: load_s is -1.0, but must be at least 0"),
        ("a.csv", "load_s\nnan\n", "line 2: load_s is nan, but must be"),
        ("a.csv", "load_s\nsoon\n", "line 2: load_s is 'soon', but must be a number"),
        ("a.csv", "load_s,kind\n\n,lora\n", "load_s is '', but must be a number"),
        ("a.csv", "kind\nlora\n", "line 2: field load_s is missing"),
        ("a.csv", "0.5\n0.7\n", "line 2: field load_s is missing"),
        ("a.csv", "load_s,knd\n1,lora\n", "unknown field 'knd'; did you mean 'kind'"),
        ("a.csv", "load_s\n1,2\n", "line 2: unknown field"),
        ("a.csv", 'load_s\n"1\n', "not valid CSV"),
        ("a.csv", "load_s,kind\n1,unet\n", "line 2: kind is 'unet', but must be one of"),
        ("a.jsonl", "1\n{\n", "line 2: not valid JSON"),
        ("a.jsonl", "1\ntrue\n", "line 2: load_s is True, but must be a number"),
        ("a.jsonl", '1\n"1"\n', "line 2: load_s is '1', but must be a number"),
        ("a.jsonl", "1\nNaN\n", "line 2: load_s is nan, but must be"),
        ("a.jsonl", "1\n1e999\n", "line 2: load_s is inf, but must be"),
        ("a.json", "[1, -2]", "item 1: load_s is -2, but must be at least 0"),
        ("a.json", '{"load_s": 1}', "must hold a list"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.csv", "load_s,kind\n1,lora\n", "has no load of a controlnet: at least one must have the kind"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_place_and_reason(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        FetchTimes(StoreEmulationConfig(latency_file=str(path)))
    assert f"adapters.emulate.latency_file {path}" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [b"load_s\n\xff\n", b"load_s\n1\0\n", "folder"])
def test_what_is_no_text_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "a.csv"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=r"a\.csv"):
        read_measurements(path)


def test_the_description_says_all_that_is_emulated(loads: Path) -> None:
    assert describe_emulation(StoreEmulationConfig(latency_ms=40)) == "40 ms latency"
    everything = StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=200, jitter=0.5, seed=2)
    assert describe_emulation(everything) == ("40 ms latency, 200 MB/s, jitter 0.5 (lognormal, seed 2)")
    measured = StoreEmulationConfig(latency_file=str(loads), seed=2)
    assert describe_emulation(measured) == (
        "fetches as measured in loads.csv, controlnet median 3 s of 1, lora median 0.2 s of 3, seed 2"
    )
