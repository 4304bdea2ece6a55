"""Tests of what a model's name stands for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swiftdiff.errors import ModelError
from swiftdiff.models import registry
from swiftdiff.models.integrity import write_manifest
from swiftdiff.models.presets import build_preset
from swiftdiff.models.registry import count_parameters, list_models, resolve_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A family's folder whose ``base`` has just the files that naming it reads."""
    base = tmp_path / "family" / "base"
    for component in ("unet", "vae"):
        (base / component).mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    (base / "unet" / "config.json").write_text(json.dumps({"sample_size": 32}))
    (base / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [8, 8, 16]}))
    return base


def test_a_preset_is_found_by_its_name() -> None:
    source = resolve_model("sdxl-thin")
    assert (source.kind, source.path, source.native_size) == ("preset", None, 256)


def test_a_diffusers_folder_says_its_native_size_and_has_no_adapters(folder: Path) -> None:
    source = resolve_model(folder)
    assert (source.kind, source.path, source.native_size) == ("folder", folder, 32 * 4)
    assert source.adapter_url is None


@pytest.mark.parametrize("name", ["sdxl", "sdxl-thin"])
def test_a_folder_with_a_presets_layers_is_known_to_bear_its_adapters(folder: Path, name: str) -> None:
    unet = build_preset(name, device="meta").unet
    unet.save_config(folder / "unet")
    assert resolve_model(folder).fitting_preset == name
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 768}))
    assert resolve_model(folder).fitting_preset is None


def test_who_has_adapters_borrows_none_and_files_and_hub_ids_are_taken_for_sdxl(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_model("sdxl-thin").fitting_preset is None
    assert resolve_model(tmp_path / "model.safetensors").fitting_preset == "sdxl"
    assert resolve_model("org/some-model_1.0").fitting_preset == "sdxl"


def test_a_family_can_be_named_by_itself_or_by_its_base_and_brings_its_adapters(folder: Path) -> None:
    (folder.parent / "loras").mkdir()
    for name in (folder.parent, folder):
        source = resolve_model(name)
        assert source.path == folder
        assert source.adapter_url == str(folder.parent)


def test_a_safetensors_file_and_a_hub_id_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_model(tmp_path / "model.safetensors").kind == "file"
    assert resolve_model("org/some-model_1.0").kind == "hub"


@pytest.mark.parametrize(
    "name", ["shape", "./missing", "/no/such/folder", "missing.safetensors", "a/b/c", ""]
)
def test_a_name_that_is_nothing_lists_what_there_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(ModelError, match=r"model_index|Known are shapes, sdxl-thin, sdxl"):
        resolve_model(name)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="did you mean sdxl-thin"):
        resolve_model("sdxl_thin")


@pytest.mark.parametrize("name", ["model.ckpt", "org/model.bin", "model.pt"])
def test_a_pickle_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ModelError, match="pickle"):
        resolve_model(name)


def test_a_folder_that_is_no_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        resolve_model(tmp_path)


def test_without_the_embedded_weights_the_error_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "shapes_root", lambda: tmp_path)
    with pytest.raises(ModelError, match="swiftdiff models train shapes"):
        resolve_model("shapes")
    embedded = list_models()[0]
    assert (embedded.available, embedded.parameters, embedded.loras) == (False, None, ())


def test_the_embedded_family_is_listed_from_its_manifest_and_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    header = json.dumps({"a": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(24)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    (folder.parent / "controlnets" / "edges").mkdir(parents=True)
    (folder.parent / "loras").mkdir()
    (folder.parent / "loras" / "neon.safetensors").write_bytes(weights)
    write_manifest(folder.parent, name="shapes", version="1", native_size=128)
    monkeypatch.setattr(registry, "shapes_root", lambda: folder.parent)
    embedded = list_models()[0]
    assert (embedded.parameters, embedded.native_size, embedded.available) == (12, 128, True)
    assert (embedded.controlnets, embedded.loras) == (("edges",), ("neon",))
    assert count_parameters(folder.parent) == 24
    assert resolve_model("shapes").native_size == 128


def test_naming_and_listing_models_does_not_import_torch() -> None:
    code = "import sys; from swiftdiff.models.registry import *; list_models(); resolve_model('sdxl'); "
    code += "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
