from __future__ import annotations

from pathlib import Path

import pytest
from bench_fakes import fabricate, small_options

from swiftdiff.bench.folder import BenchFolder
from swiftdiff.errors import StorageError


def _folder(path: Path) -> BenchFolder:
    return BenchFolder.create(path / "bench", small_options())


def test_what_is_appended_is_read_back_and_the_options_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    measurements = fabricate("stock", [1.0, 2.0])
    for each in measurements:
        folder.append(each)
    opened = BenchFolder.open(folder.path)
    assert opened.read_measurements() == measurements
    assert opened.read_options() == small_options()


def test_of_several_records_of_the_same_measurement_the_last_counts(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    for latency_s in (1.0, 7.0):
        folder.append(fabricate("stock", [latency_s])[0])
    assert [each.latency_s for each in folder.read_measurements()] == [7.0]


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(fabricate("stock", [1.0])[0])
    whole = folder.raw_path.read_bytes()
    folder.raw_path.write_bytes(whole + whole[:40])
    assert len(BenchFolder.open(folder.path).read_measurements()) == 1
    assert folder.raw_path.read_bytes() == whole


def test_a_damaged_line_before_the_last_is_told_with_its_number(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(fabricate("stock", [1.0])[0])
    folder.raw_path.write_bytes(b"{}\n" + folder.raw_path.read_bytes())
    with pytest.raises(StorageError, match=r"raw\.jsonl:1: the record is damaged"):
        BenchFolder.open(folder.path)


def test_folders_that_are_taken_or_no_benchmarks_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(StorageError, match="--resume"):
        BenchFolder.create(folder.path, small_options())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StorageError, match="name another"):
        BenchFolder.create(tmp_path / "other", small_options())
    with pytest.raises(StorageError, match=r"has no bench\.json"):
        BenchFolder.open(tmp_path / "other")
