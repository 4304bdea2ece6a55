"""Tests that a run serves and records mapped adapters, says how, and resumes with the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeSystem, fake_config, make_request, read_lines, write_requests

from swiftdiff.adapters.store import AdapterStore
from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.engine.clock import FakeClock
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.engine.session import Ended, resume_run, start_run
from swiftdiff.errors import AdapterError, ConfigError, StorageError
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.trace import trace_sha256


class LoadingSystem(FakeSystem):
    """Reads each LoRA of a request from the store of its config."""

    def __init__(self, config: ServingConfig, interrupt_at: str | None = None) -> None:
        super().__init__(FakeClock(), before=self._load)
        self._store = AdapterStore(str(config.adapters.url))
        self._interrupt_at = interrupt_at
        self.loaded: list[tuple[str, str]] = []

    def _load(self, request: ImageRequest) -> None:
        if request.request_id == self._interrupt_at:
            raise KeyboardInterrupt
        for use in request.loras:
            self.loaded.append((use.id, self._store.fetch_lora(use.id).path.read_text()))


class Bench:
    def __init__(self, folder: Path) -> None:
        (folder / "store/loras").mkdir(parents=True)
        for name in ("gold", "neon"):
            (folder / f"store/loras/{name}.safetensors").write_text(name)
        requests = [make_request(f"r{n}", loras=(LoraUse(id=f"f/{n}"), LoraUse(id="gold"))) for n in range(6)]
        self.trace = write_requests(folder / "trace.jsonl", requests)
        self.out = folder / "run"
        store = AdapterStoreConfig(url=str(folder / "store"))
        self.config = fake_config().model_copy(update={"adapters": store})
        self.interrupt_at: str | None = None
        self.systems: list[LoadingSystem] = []

    def build(self, config: ServingConfig) -> LoadingSystem:
        self.systems.append(LoadingSystem(config, self.interrupt_at))
        return self.systems[-1]

    def start(self, adapters: str | None, out: str = "run", **options: int) -> Ended:
        replay = ReplayOptions(adapters=adapters, **options)  # type: ignore[arg-type]
        self.out = self.trace.parent / out
        return start_run(
            self.trace, self.config, replay, self.out, argv=[], clock=FakeClock(), build=self.build
        )

    def resume(self) -> Ended:
        self.interrupt_at = None
        return resume_run(self.out, clock=FakeClock(), build=self.build)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_aliases_are_loaded_each_on_its_own_and_can_be_traced_back(bench: Bench) -> None:
    assert bench.start("alias").outcome == "complete"
    (system,) = bench.systems
    assert len({id_ for id_, _ in system.loaded}) == 7
    mapping = json.loads((bench.out / "adapters.json").read_text())
    served = {each["id"]: (foreign, each["weights"]) for foreign, each in mapping["adapters"]["lora"].items()}
    assert all(served[id_][1] == text for id_, text in system.loaded)
    records = read_lines(bench.out / "requests.jsonl")
    assert [served[record["loras"][0]][0] for record in records] == [f"f/{n}" for n in range(6)]
    assert all(record["status"] == "ok" for record in records)


def test_run_json_keeps_the_traces_own_hash_and_config_toml_the_real_store(bench: Bench) -> None:
    bench.start("alias")
    info = json.loads((bench.out / "run.json").read_text())
    assert info["trace_sha256"] == trace_sha256(bench.trace)
    assert info["options"]["adapters"] == info["mapped_adapters"]["how"] == "alias"
    assert str(bench.config.adapters.url) in (bench.out / "config.toml").read_text()


def test_a_limit_does_not_change_what_an_id_means(bench: Bench) -> None:
    bench.start("popularity")
    whole = (bench.out / "adapters.json").read_text()
    bench.start("popularity", "limited", limit=2)
    assert (bench.out / "adapters.json").read_text() == whole
    assert len(read_lines(bench.out / "requests.jsonl")) == 2


def test_a_resumed_run_goes_on_with_the_same_mapping(bench: Bench, tmp_path: Path) -> None:
    rule = tmp_path / "m.json"
    rule.write_text(json.dumps({"loras": {f"f/{n}": "neon" for n in range(6)}}))
    bench.interrupt_at = "r3"
    assert bench.start(str(rule)).outcome == "interrupted"
    rule.unlink()  # the run's folder has all that is needed
    assert bench.resume().outcome == "complete"
    assert [text for id_, text in bench.systems[1].loaded if id_ == "neon"] == ["neon"] * 3
    assert {tuple(r["loras"]) for r in read_lines(bench.out / "requests.jsonl")} == {("neon", "gold")}


def test_a_resumed_alias_run_has_its_store_again(bench: Bench) -> None:
    bench.interrupt_at = "r3"
    bench.start("alias")
    assert bench.resume().outcome == "complete"
    assert all(record["status"] == "ok" for record in read_lines(bench.out / "requests.jsonl"))


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_a_run_whose_mapping_is_damaged_is_not_resumed(bench: Bench, damage: str) -> None:
    bench.interrupt_at = "r3"
    bench.start("hash")
    path = bench.out / "adapters.json"
    text = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(text[:100] if damage == "torn" else text.replace('"neon"', '"gold"'))
    with pytest.raises(StorageError, match=r"adapters\.json"):
        bench.resume()


def test_a_mapping_that_cannot_be_is_refused_before_anything_is_loaded_or_written(
    bench: Bench, tmp_path: Path
) -> None:
    lacking = tmp_path / "m.json"
    lacking.write_text('{"loras": {"f/0": "neon"}}')
    for adapters in ("alais", str(lacking), str(tmp_path / "nowhere.csv")):
        with pytest.raises(ConfigError, match="--adapters"):
            bench.start(adapters)
    bench.config = bench.config.model_copy(update={"adapters": AdapterStoreConfig(url=str(tmp_path / "no"))})
    with pytest.raises(AdapterError, match="cannot be mapped"):
        bench.start("alias")
    assert bench.systems == []
    assert not bench.out.exists()


def test_without_a_mapping_foreign_ids_fail_alone_and_no_mapping_is_written(bench: Bench) -> None:
    assert bench.start(None).outcome == "complete"
    records = read_lines(bench.out / "requests.jsonl")
    assert {record["error_kind"] for record in records} == {"UnknownAdapterError"}
    assert not (bench.out / "adapters.json").exists()
