"""Tests that a generated store has a file for each id, costs next to nothing, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
from fakes import fake_config, make_request

from swiftdiff.adapters.generated_store import list_store, mapped_config
from swiftdiff.adapters.mapping import AdapterMapping, count_uses, map_adapters
from swiftdiff.adapters.mapping_file import MappingRule, Rule
from swiftdiff.adapters.store import AdapterStore
from swiftdiff.config import AdapterStoreConfig, ServingConfig, StoreEmulationConfig
from swiftdiff.errors import AdapterError, StorageError
from swiftdiff.request import ControlNetUse, LoraUse

EMULATE = StoreEmulationConfig(latency_ms=5, jitter=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("edges", "depth"):
        controlnet = tmp_path / "store" / "controlnets" / name
        controlnet.mkdir(parents=True)
        (controlnet / "config.json").write_text("{}")
        (controlnet / "diffusion_pytorch_model.safetensors").write_text(name)
    (tmp_path / "store" / "loras").mkdir()
    for name in ("gold", "neon"):
        (tmp_path / "store" / "loras" / f"{name}.safetensors").write_text(name)
    return tmp_path / "store"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def config_of(url: str) -> ServingConfig:
    store = AdapterStoreConfig(url=url, emulate=EMULATE)
    return fake_config().model_copy(update={"adapters": store})


def mapping_for(config: ServingConfig, how: Rule, count: int = 20) -> AdapterMapping:
    requests = [
        make_request(
            f"r{n}",
            loras=(LoraUse(id=f"f/{n}"), LoraUse(id="gold")),
            controlnets=(ControlNetUse(id=f"c{n % 3}", image="c.png"),),
        )
        for n in range(count)
    ]
    return map_adapters(MappingRule(how), count_uses(requests), *list_store(config))


def test_each_id_is_a_file_of_its_own_with_the_weights_that_the_mapping_says(
    folder: Path, temporary: Path
) -> None:
    config = config_of(str(folder))
    mapping = mapping_for(config, "alias")
    with mapped_config(config, mapping) as serving:
        assert serving.adapters.emulate == EMULATE
        assert serving.adapters.url != config.adapters.url
        store = AdapterStore(str(serving.adapters.url))
        loras = [store.fetch_lora(each.id) for each in mapping.adapters["lora"].values()]
        assert len({fetched.path for fetched in loras}) == 21
        for fetched, each in zip(loras, mapping.adapters["lora"].values(), strict=True):
            assert fetched.path.read_text() == each.weights
            assert fetched.num_bytes == len(each.weights)
        for each in mapping.adapters["controlnet"].values():
            fetched = store.fetch_controlnet(each.id)
            assert (fetched.path / "diffusion_pytorch_model.safetensors").read_text() == each.weights
    assert list(temporary.iterdir()) == []
    assert (folder / "loras/gold.safetensors").read_text() == "gold"


def test_two_thousand_ids_take_no_space(folder: Path, temporary: Path) -> None:
    config = config_of(str(folder))
    (folder / "loras/gold.safetensors").write_bytes(b"g" * 1_000_000)
    (folder / "loras/neon.safetensors").write_bytes(b"n" * 1_000_000)
    with mapped_config(config, mapping_for(config, "alias", 2000)):
        files = [path for path in temporary.rglob("*") if not path.is_dir()]
        assert len(files) >= 2000
        assert sum(path.lstat().st_size for path in files) < 1_000_000


def test_what_is_remote_is_fetched_once_for_all_ids(
    folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/remote", recursive=True)
    config = config_of("memory://remote")
    mapping = mapping_for(config, "alias")
    fetched: list[str] = []
    original = AdapterStore.fetch_lora
    monkeypatch.setattr(
        AdapterStore, "fetch_lora", lambda self, id_: (fetched.append(id_), original(self, id_))[1]
    )
    with mapped_config(config, mapping) as serving:
        assert sorted(fetched) == ["gold", "neon"]
        store = AdapterStore(str(serving.adapters.url))
        assert {store.fetch_lora(each.id).path.read_text() for each in mapping.adapters["lora"].values()} == {
            "gold",
            "neon",
        }
    assert list(temporary.iterdir()) == []
    memory.rm("/remote", recursive=True)


@pytest.mark.parametrize("how", ["popularity", "hash"])
def test_other_rules_serve_from_the_store_itself(folder: Path, temporary: Path, how: Rule) -> None:
    config = config_of(str(folder))
    with mapped_config(config, mapping_for(config, how)) as serving:
        assert serving == config
    with mapped_config(config, None) as serving:
        assert serving == config
    assert list(temporary.iterdir()) == []


def test_an_adapter_that_is_gone_or_incomplete_is_named_and_nothing_stays(
    folder: Path, temporary: Path
) -> None:
    config = config_of(str(folder))
    mapping = mapping_for(config, "alias")
    (folder / "controlnets/edges/config.json").unlink()
    with (
        pytest.raises(AdapterError, match=r"ControlNet 'edges' .* is incomplete"),
        mapped_config(config, mapping),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_a_disk_that_takes_no_link_is_one_clear_error(
    folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    config = config_of(str(folder))
    mapping = mapping_for(config, "alias")
    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(StorageError, match="No space left"), mapped_config(config, mapping):
        pass
    assert list(temporary.iterdir()) == []


def test_an_error_while_serving_is_passed_on_as_it_is_and_nothing_stays(
    folder: Path, temporary: Path
) -> None:
    config = config_of(str(folder))
    with pytest.raises(OSError, match="its own"), mapped_config(config, mapping_for(config, "alias")):
        raise OSError("its own")
    assert list(temporary.iterdir()) == []
