from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.errors import StorageError
from swiftdiff.resources import copy_workloads, path, workloads_root


def test_shipped_files_are_found_by_name() -> None:
    assert path("configs/diffusers.toml").is_file()
    assert path("quickstart.jsonl").is_file()


@pytest.mark.parametrize("name", ["no.jsonl", "../setup.cfg", "/etc/passwd"])
def test_what_does_not_ship_is_refused(name: str) -> None:
    with pytest.raises(StorageError, match="ships with swiftdiff"):
        path(name)


def test_workloads_hold_no_code() -> None:
    assert not [file for file in workloads_root().rglob("*") if file.suffix in {".py", ".sh"}]


def test_copies_are_whole_and_editable(tmp_path: Path) -> None:
    written = copy_workloads(tmp_path / "new")
    assert tmp_path / "new" / "quickstart.jsonl" in written
    for file in written:
        original = workloads_root() / file.relative_to(tmp_path / "new")
        assert file.read_bytes() == original.read_bytes()
        file.write_bytes(b"edited")


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    edited = copy_workloads(tmp_path)[0]
    edited.write_text("mine")
    with pytest.raises(StorageError, match="would be overwritten"):
        copy_workloads(tmp_path)
    assert edited.read_text() == "mine"
    copy_workloads(tmp_path, overwrite=True)
    assert edited.read_text() != "mine"


def test_one_file_in_the_way_stops_the_copy_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "quickstart.jsonl").write_text("mine")
    with pytest.raises(StorageError, match=r"quickstart\.jsonl would be overwritten"):
        copy_workloads(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["quickstart.jsonl"]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        copy_workloads(tmp_path / "file")
