"""Tests of families on disk: whole or not at all, made once, and remade when damaged."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from swiftdiff.errors import ModelError, StorageError
from swiftdiff.models import family
from swiftdiff.models.family import cached_family, family_folder, materialize_preset
from swiftdiff.models.integrity import verify_manifest, write_manifest
from swiftdiff.models.presets import PRESETS, Preset
from swiftdiff.models.registry import resolve_model


class FakeWriter:
    """Writes a one-file family in place of gigabytes of weights."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, preset: Preset, root: Path, seed: int, loras: int, base: bool) -> None:
        self.calls += 1
        (root / "loras").mkdir()
        (root / "loras" / "neon.safetensors").write_bytes(b"weights")
        write_manifest(root, name=preset.name, version="1", native_size=preset.native_size)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeWriter:
    fake = FakeWriter()
    monkeypatch.setattr(family, "_write_family", fake)
    monkeypatch.setattr(family, "cache_root", lambda: tmp_path / "cache")
    return fake


def test_a_family_on_disk_is_whole_and_has_base_controlnets_and_loras(thin_family: Path) -> None:
    manifest = verify_manifest(thin_family)
    assert manifest.native_size == 256
    assert {path.name for path in thin_family.iterdir()} == {"base", "controlnets", "loras", "manifest.json"}
    assert {path.name for path in (thin_family / "controlnets").iterdir()} == {"depth", "edges", "layout"}
    assert {path.stem for path in (thin_family / "loras").iterdir()} == set(PRESETS["sdxl-thin"].loras[:4])
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in thin_family.rglob("*.safetensors"))


def test_the_cache_is_written_once(writer: FakeWriter) -> None:
    url = resolve_model("sdxl-thin").adapter_url
    assert url == str(family_folder("sdxl-thin"))
    assert cached_family("sdxl-thin") == Path(url)
    assert writer.calls == 1


def test_a_damaged_cache_is_written_again(writer: FakeWriter) -> None:
    folder = cached_family("sdxl-thin")
    (folder / "loras" / "neon.safetensors").write_bytes(b"w")
    assert cached_family("sdxl-thin") == folder
    verify_manifest(folder)
    assert writer.calls == 2


def test_a_crash_in_the_middle_leaves_nothing_that_looks_like_a_family(
    writer: FakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(family, "write_manifest", crash)
    monkeypatch.setattr(family, "_write_family", crash)
    with pytest.raises(StorageError, match="No space left"):
        cached_family("sdxl-thin")
    assert list(family_folder("sdxl-thin").parent.iterdir()) == []
    monkeypatch.setattr(family, "_write_family", writer)
    verify_manifest(cached_family("sdxl-thin"))


def test_the_second_of_two_processes_uses_what_the_first_wrote(
    writer: FakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = family_folder("sdxl-thin")

    def other_process_first(preset: Preset, root: Path, seed: int, loras: int, base: bool) -> None:
        folder.mkdir()
        writer(preset, folder, seed, loras, base)
        writer(preset, root, seed, loras, base)

    monkeypatch.setattr(family, "_write_family", other_process_first)
    assert cached_family("sdxl-thin") == folder
    verify_manifest(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_process_left_is_removed_after_a_day(writer: FakeWriter) -> None:
    folder = family_folder("sdxl-thin")
    parent, prefix = folder.parent, f".{folder.name}.building-"
    for name, age_s in (("old", 2 * 24 * 3600), ("new", 60)):
        leftover = parent / f"{prefix}{name}"
        leftover.mkdir(parents=True)
        os.utime(leftover, (time.time() - age_s,) * 2)
    cached_family("sdxl-thin")
    assert {path.name for path in parent.iterdir()} == {folder.name, f"{prefix}new"}


def test_a_folder_that_holds_something_is_never_overwritten(writer: FakeWriter, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(StorageError, match="not an empty folder"):
        materialize_preset("sdxl-thin", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    with pytest.raises(ModelError, match="preset is 'sdxl-wide'"):
        materialize_preset("sdxl-wide", tmp_path / "other")


def test_a_full_disk_is_noticed_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(StorageError, match=r"needs about .* GB"):
        materialize_preset("sdxl", tmp_path / "full")
    assert list(tmp_path.iterdir()) == []
