"""Tests that files of measured load times are read in every form, and that what is wrong is named."""

from __future__ import annotations

import gzip
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from swiftdiff.adapters.emulation import FetchTimes
from swiftdiff.adapters.measured_times import read_measurements
from swiftdiff.config import StoreEmulationConfig
from swiftdiff.errors import ConfigError

GENTD26 = Path(__file__).parents[3] / "shared/data/gentd26"
GENTD26_ROWS = "timestamp_anon,value,container_ip\n1662859176.0,7109.0,7c92\n1662859290.0,826.0,086b\n"


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
        ("a.csv.gz", "load_s\n-1\n", "line 2: load_s is -1.0, but must be at least 0"),
        ("a.txt.gz", "0.5", "its name must end in"),
        (
            "a.csv",
            GENTD26_ROWS + "1662859290.0,soon,086b\n",
            "line 4: load_s is 'soon', but must be a number",
        ),
        ("a.csv", GENTD26_ROWS + "1662859290.0\n", "line 4: load_s is None, but must be a number"),
        ("a.csv", "timestamp_anon,value\n1,2\n", "line 2: field load_s is missing"),
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


def test_gentd26s_files_are_read_as_they_are_published_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "lora_update_latency_anon.csv.gz"
    path.write_bytes(gzip.compress(GENTD26_ROWS.encode()))
    assert read_measurements(path, "lora_latency_file", ["lora"]).seconds == {"lora": (7.109, 0.826)}


@pytest.mark.skipif(not GENTD26.is_dir(), reason="GenTD26's files are not here")
def test_the_real_files_have_the_medians_that_their_readers_know() -> None:
    for name, kind, median_s in (
        ("lora_update_latency_anon.csv.gz", "lora", 4.4),
        ("controlnet_latency_data_anon.csv.gz", "controlnet", 3.9),
    ):
        times = read_measurements(GENTD26 / name, f"{kind}_latency_file", [kind]).seconds[kind]
        assert len(times) > 27_000
        assert statistics.median(times) == pytest.approx(median_s, abs=0.05)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:30] + b"\0" * 30 + data[60:]])
def test_a_damaged_gzip_file_is_refused_with_what_to_do(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(damage(gzip.compress(("load_s\n" + "".join(f"{n}.5\n" for n in range(500))).encode())))
    with pytest.raises(ConfigError, match=r"gzip data is damaged or cut off .*; copy the file again"):
        read_measurements(path)


def test_a_file_of_one_kind_needs_no_time_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("load_s,kind\n1,lora\n2,controlnet\n3,lora\n")
    assert read_measurements(path, "lora_latency_file", ["lora"]).seconds == {"lora": (1, 3)}
    path.write_text("load_s,kind\n1,controlnet\n")
    with pytest.raises(ConfigError, match=r"adapters\.emulate\.lora_latency_file .* has no load of a lora"):
        read_measurements(path, "lora_latency_file", ["lora"])
