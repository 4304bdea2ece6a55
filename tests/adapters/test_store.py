from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from swiftdiff.adapters.store import AdapterStore
from swiftdiff.engine.clock import FakeClock
from swiftdiff.errors import AdapterError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("edges", "depth"):
        controlnet = tmp_path / "store" / "controlnets" / name
        controlnet.mkdir(parents=True)
        (controlnet / "config.json").write_bytes(b"{}")
        (controlnet / "diffusion_pytorch_model.safetensors").write_bytes(b"w" * 1000)
    loras = tmp_path / "store" / "loras"
    loras.mkdir()
    (loras / "neon.safetensors").write_bytes(b"n" * 500)
    (loras / "gold-v1.2.safetensors").write_bytes(b"g" * 700)
    (loras / "notes.txt").write_text("no adapter")
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return tmp_path / "store"


def test_a_store_lists_its_adapters_by_id(folder: Path) -> None:
    store = AdapterStore(str(folder))
    assert store.controlnet_ids() == ["depth", "edges"]
    assert store.lora_ids() == ["gold-v1.2", "neon"]


def test_local_adapters_are_used_where_they_lie(folder: Path) -> None:
    store = AdapterStore(str(folder))
    lora, controlnet = store.fetch_lora("neon"), store.fetch_controlnet("edges")
    assert (lora.path, lora.num_bytes) == (folder / "loras/neon.safetensors", 500)
    assert (controlnet.path, controlnet.num_bytes) == (folder / "controlnets/edges", 1002)


@pytest.mark.parametrize(
    "bad", ["../secret", "..", ".", "", "a/b", "/etc/passwd", "a\\b", "neon\n", "x" * 129, "c:neon", "a\0b"]
)
def test_an_id_can_never_be_a_path(folder: Path, bad: str) -> None:
    store = AdapterStore(str(folder))
    for fetch in (store.fetch_lora, store.fetch_controlnet):
        with pytest.raises(AdapterError, match="id is"):
            fetch(bad)


def test_an_unknown_id_is_told_with_what_was_probably_meant(folder: Path) -> None:
    with pytest.raises(AdapterError, match=r"'noen'; did you mean 'neon'\? known: gold-v1.2, neon"):
        AdapterStore(str(folder)).fetch_lora("noen")


def test_a_controlnet_without_weights_is_told_apart_from_an_unknown_one(folder: Path) -> None:
    (folder / "controlnets/edges/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"incomplete: it needs config.json and diffusion_pytorch_model"):
        AdapterStore(str(folder)).fetch_controlnet("edges")


def test_a_store_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no LoRA 'neon' in the adapter store .*nowhere"):
        AdapterStore(str(tmp_path / "nowhere")).fetch_lora("neon")


def test_a_url_that_fsspec_does_not_know_is_an_adapter_error() -> None:
    with pytest.raises(AdapterError, match="gopher"):
        AdapterStore("gopher://old/hole")


def test_latency_and_bandwidth_of_a_remote_store_are_emulated_at_every_fetch(folder: Path) -> None:
    clock = FakeClock()
    store = AdapterStore(str(folder), latency_ms=40, bandwidth_mb_s=0.001, sleep=clock.sleep, clock=clock.now)
    assert store.fetch_lora("neon").load_s == pytest.approx(0.04 + 500 / 1000)
    store.fetch_lora("neon")
    assert clock.now() == pytest.approx(2 * 0.54)


def test_remote_adapters_are_copied_and_the_copies_deleted_on_close(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket", recursive=True)
    store = AdapterStore("memory://bucket")
    fetched = store.fetch_controlnet("depth")
    assert sorted(path.name for path in fetched.path.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert store.fetch_lora("neon").path.read_bytes() == b"n" * 500
    store.close()
    assert not fetched.path.exists()


def test_a_zip_file_is_a_store(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "adapters.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(folder))
    store = AdapterStore(f"zip://::file://{archive}")
    assert store.lora_ids() == ["gold-v1.2", "neon"]
    assert store.fetch_lora("gold-v1.2").path.read_bytes() == b"g" * 700
    store.close()
