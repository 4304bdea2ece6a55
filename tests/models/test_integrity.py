"""Tests of manifests and of the check of safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swiftdiff.errors import ModelError
from swiftdiff.models.integrity import (
    read_manifest,
    read_safetensors_header,
    verify_manifest,
    write_manifest,
)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    (tmp_path / "base" / "unet").mkdir(parents=True)
    (tmp_path / "base" / "unet" / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "base" / "model_index.json").write_text("{}")
    write_manifest(tmp_path, name="shapes", version="1", native_size=128)
    return tmp_path


def test_a_family_as_it_was_written_passes(family: Path) -> None:
    manifest = verify_manifest(family)
    assert set(manifest.files) == {"base/model_index.json", "base/unet/weights.safetensors"}
    assert (manifest.name, manifest.version, manifest.native_size) == ("shapes", "1", 128)
    assert manifest.num_bytes == 9


def test_one_altered_byte_is_named_with_its_file(family: Path) -> None:
    (family / "base" / "unet" / "weights.safetensors").write_bytes(b"Weights")
    verify_manifest(family, hashes=False)
    with pytest.raises(ModelError, match=r"weights\.safetensors is damaged: its SHA-256"):
        verify_manifest(family)


def test_a_truncated_file_is_named_with_both_sizes(family: Path) -> None:
    (family / "base" / "unet" / "weights.safetensors").write_bytes(b"wei")
    with pytest.raises(ModelError, match=r"weights\.safetensors is damaged: 3 bytes instead of 7"):
        verify_manifest(family)


def test_a_missing_file_is_named(family: Path) -> None:
    (family / "base" / "model_index.json").unlink()
    with pytest.raises(ModelError, match=r"model_index\.json is part of model shapes but cannot be read"):
        verify_manifest(family)


def test_a_manifest_cannot_name_files_outside_its_folder(family: Path) -> None:
    content = json.loads((family / "manifest.json").read_text())
    content["files"]["../elsewhere"] = {"sha256": "0", "bytes": 1}
    (family / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="outside its folder"):
        read_manifest(family)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "files": []}'])
def test_something_else_than_a_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_header_gives_names_and_shapes(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(
        {"a": torch.zeros(2, 3, dtype=torch.float16), "b": torch.zeros(4)}, file, metadata={"format": "pt"}
    )
    assert read_safetensors_header(file) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_safetensors_file_is_recognised_by_its_header(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(100)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        read_safetensors_header(file)


def test_a_pickle_under_a_safetensors_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_safetensors_header(file)
