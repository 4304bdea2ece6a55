from __future__ import annotations

import random
from pathlib import Path

import pytest

from swiftdiff.errors import StorageError, TraceError
from swiftdiff.trace.importers import sorting
from swiftdiff.trace.importers.sorting import Timed, sort_by_arrival
from swiftdiff.trace.importers.source import SourceRequest


def timed(count: int) -> list[Timed]:
    rng = random.Random(1)
    return [
        (float(rng.randrange(count // 3 + 1)), i, SourceRequest(where=f"f:{i}", loras=(("a", None),)))
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95])
def test_runs_on_disk_merge_to_what_sorting_in_memory_gives(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "RUN_LENGTH", 10)
    requests = timed(count)
    assert list(sort_by_arrival(requests, tmp_path)) == sorted(requests, key=lambda t: t[:2])
    assert list(tmp_path.iterdir()) == []


def test_more_requests_than_it_can_sort_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_LENGTH", 2)
    monkeypatch.setattr(sorting, "MAX_RUNS", 3)
    with pytest.raises(TraceError, match="--sort sorts at most 6 requests"):
        list(sort_by_arrival(timed(9), tmp_path))


def test_a_folder_that_takes_no_files_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RUN_LENGTH", 2)
    with pytest.raises(StorageError, match="cannot write what is being sorted"):
        list(sort_by_arrival(timed(9), tmp_path / "missing"))
