"""The access log: whole lines on the disk, in files of bounded size, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from patience import PATIENCE_S

from swiftdiff.errors import StorageError
from swiftdiff.server.access_log import AccessLog, AccessRecord


def record(number: int) -> AccessRecord:
    return AccessRecord(at="2026-01-01T00:00:00+00:00", request_id=f"r{number}", http_status=200)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["request_id"] for line in path.read_text().splitlines()]


def open_log(path: Path | None, max_bytes: int = 10**6, max_files: int = 3) -> AccessLog:
    return AccessLog(path, max_bytes=max_bytes, max_files=max_files)


def test_a_record_is_in_the_file_when_its_future_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "access.jsonl"
    log = open_log(path)
    log.submit(record(1)).result(PATIENCE_S)
    assert ids(path) == ["r1"]
    for number in range(2, 200):
        log.submit(record(number))
    log.close()
    assert ids(path) == [f"r{number}" for number in range(1, 200)]


def test_files_are_rotated_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = open_log(path, max_bytes=250, max_files=2)
    for number in range(20):
        log.submit(record(number)).result(PATIENCE_S)
    log.close()
    files = [path.with_name("access.jsonl.2"), path.with_name("access.jsonl.1"), path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 250 for file in files)
    kept = [name for file in files for name in ids(file)]
    assert kept == [f"r{number}" for number in range(20 - len(kept), 20)]


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text('{"request_id": "r0"}\n{"request_id": "r' + "x" * 100_000)
    log = open_log(path)
    log.submit(record(1)).result(PATIENCE_S)
    log.close()
    assert ids(path) == ["r0", "r1"]


def test_two_servers_do_not_write_one_log(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = open_log(path, max_bytes=200)
    for number in range(5):  # also after it was rotated
        log.submit(record(number)).result(PATIENCE_S)
    with pytest.raises(StorageError, match="another server writes"):
        open_log(path)
    log.close()
    open_log(path).close()


def test_a_log_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "access.jsonl"):
        with pytest.raises(StorageError, match="cannot write access log"):
            open_log(path)


def test_a_full_disk_fails_the_record_and_the_log_goes_on() -> None:
    log = open_log(Path("/dev/full"))
    for number in range(2):
        with pytest.raises(StorageError, match="No space left"):
            log.submit(record(number)).result(PATIENCE_S)
    log.close()


def test_no_log_takes_records_all_the_same() -> None:
    log = open_log(None)
    log.submit(record(1)).result(PATIENCE_S)
    log.close()
