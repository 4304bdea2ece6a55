from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from patience import PATIENCE_S

from swiftdiff.adapters.store import AdapterStore, StoreUnavailableError, open_store
from swiftdiff.config import AdapterStoreConfig, StoreEmulationConfig
from swiftdiff.engine.clock import FakeClock
from swiftdiff.errors import AdapterError, ConfigError


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
    emulate = StoreEmulationConfig(latency_ms=40, bandwidth_mb_s=0.001)
    store = AdapterStore(str(folder), emulate, sleep=clock.sleep, clock=clock.now)
    assert store.fetch_lora("neon").load_s == pytest.approx(0.04 + 500 / 1000)
    store.fetch_lora("neon")
    assert clock.now() == pytest.approx(2 * 0.54)


def test_two_stores_take_the_same_drawn_times_for_the_same_fetches(folder: Path) -> None:
    emulate = StoreEmulationConfig(latency_ms=100, jitter=1)
    took: list[list[float]] = []
    for order in (("neon", "gold-v1.2", "neon"), ("gold-v1.2", "neon", "neon")):
        clock = FakeClock()
        store = AdapterStore(str(folder), emulate, sleep=clock.sleep, clock=clock.now)
        took.append(sorted(store.fetch_lora(name).load_s for name in order))
    assert took[0] == pytest.approx(took[1])
    assert len(set(took[0])) == 3


def test_a_store_takes_measured_times_by_kind(folder: Path, tmp_path: Path) -> None:
    loads = tmp_path / "loads.jsonl"
    loads.write_text('{"load_s": 0.5, "kind": "lora"}\n{"load_s": 2, "kind": "controlnet"}\n')
    clock = FakeClock()
    emulate = StoreEmulationConfig(latency_file=str(loads))
    store = AdapterStore(str(folder), emulate, sleep=clock.sleep, clock=clock.now)
    assert (store.fetch_lora("neon").load_s, store.fetch_controlnet("edges").load_s) == (0.5, 2)


def test_a_store_that_fails_is_not_waited_for(folder: Path) -> None:
    clock = FakeClock()
    emulate = StoreEmulationConfig(latency_ms=40)
    with pytest.raises(AdapterError):
        AdapterStore(str(folder), emulate, sleep=clock.sleep, clock=clock.now).fetch_lora("noen")
    assert clock.now() == 0


def test_a_config_opens_its_own_store_or_else_the_models(folder: Path, tmp_path: Path) -> None:
    named = open_store(AdapterStoreConfig(url=str(folder)), "memory://elsewhere")
    of_model = open_store(AdapterStoreConfig(), str(folder))
    for store in (named, of_model):
        assert store is not None
        assert store.url == str(folder)
    assert open_store(AdapterStoreConfig(), None) is None
    emulate = StoreEmulationConfig(latency_file=str(tmp_path / "nowhere.csv"))
    with pytest.raises(ConfigError, match=r"nowhere\.csv cannot be read"):
        open_store(AdapterStoreConfig(emulate=emulate), str(folder))


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


def test_an_archive_that_is_missing_or_none_is_an_adapter_error(tmp_path: Path) -> None:
    (tmp_path / "torn.zip").write_bytes(b"PK\3\4torn")
    for name in ("nowhere.zip", "torn.zip"):
        with pytest.raises(AdapterError, match=rf"{name}' cannot be opened"):
            AdapterStore(f"zip://::file://{tmp_path / name}")


def test_ids_that_a_remote_store_lacks_are_unknown_not_unavailable(folder: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").put(str(folder), "/lacking", recursive=True)
    archive = tmp_path / "adapters.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "loras/neon.safetensors", "loras/neon.safetensors")
    for url in ("memory://lacking", f"zip://::file://{archive}"):
        store = AdapterStore(url)
        for fetch in (store.fetch_lora, store.fetch_controlnet):
            with pytest.raises(AdapterError, match="'noen'") as caught:
                fetch("noen")
            assert not isinstance(caught.value, StoreUnavailableError)
        with pytest.raises(AdapterError, match=r"LoRA id is '\.\./neon'"):
            store.fetch_lora("../neon")
        store.close()


class _FailingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Knows every file and gives none."""

    protocol = "failing"
    cachable = False

    def get_file(self, rpath: str, lpath: str, **_: object) -> None:
        Path(lpath).write_bytes(b"half")
        raise ConnectionResetError(f"reset while {rpath} was read")


def test_a_read_that_fails_may_be_tried_again_and_leaves_no_half_file() -> None:
    fsspec.register_implementation("failing", _FailingFileSystem, clobber=True)
    store = AdapterStore("failing://bucket")
    with pytest.raises(
        StoreUnavailableError, match=r"LoRA 'neon' cannot be read from failing://.*reset while"
    ):
        store.fetch_lora("neon")
    with pytest.raises(StoreUnavailableError, match="ControlNet 'edges' cannot be read"):
        store.fetch_controlnet("edges")
    store.close()


class _MeetingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Two reads meet half-way, so that both are under way at one time."""

    protocol = "meeting"
    cachable = False
    met = threading.Barrier(2)

    def get_file(self, rpath: str, lpath: str, **_: object) -> None:
        with Path(lpath).open("wb") as file:
            file.write(b"first half, ")
            self.met.wait(PATIENCE_S)
            file.write(b"second half")


def test_two_threads_that_fetch_one_adapter_both_get_it_whole() -> None:
    fsspec.register_implementation("meeting", _MeetingFileSystem, clobber=True)
    store = AdapterStore("meeting://bucket")
    with ThreadPoolExecutor(2) as pool:
        fetched = list(pool.map(store.fetch_lora, ("neon", "neon")))
    assert [adapter.num_bytes for adapter in fetched] == [23, 23]
    assert fetched[0].path.read_bytes() == b"first half, second half"
    store.close()


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder; some paths fail as servers do."""

    def do_GET(self) -> None:
        if "broken" in self.path:
            self.send_error(503)
        elif "short" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_web_server_is_a_store(server: ThreadingHTTPServer, folder: Path) -> None:
    store = AdapterStore(_url(server))
    assert store.fetch_lora("neon").path.read_bytes() == b"n" * 500
    controlnet = store.fetch_controlnet("edges")
    assert (controlnet.num_bytes, (controlnet.path / "config.json").read_bytes()) == (1002, b"{}")
    assert folder not in controlnet.path.parents
    store.close()


def test_not_found_on_a_web_server_is_an_unknown_id(server: ThreadingHTTPServer) -> None:
    store = AdapterStore(_url(server))
    with pytest.raises(AdapterError, match=r"no LoRA 'noen'|unknown LoRA 'noen'") as caught:
        store.fetch_lora("noen")
    assert not isinstance(caught.value, StoreUnavailableError)
    with pytest.raises(AdapterError, match=r"LoRA id is '\.\./secret'"):
        store.fetch_lora("../secret")


@pytest.mark.parametrize("adapter_id", ["broken", "short"])
def test_a_web_server_that_fails_may_be_asked_again(server: ThreadingHTTPServer, adapter_id: str) -> None:
    store = AdapterStore(_url(server))
    with pytest.raises(StoreUnavailableError, match=f"LoRA '{adapter_id}' cannot be read from http"):
        store.fetch_lora(adapter_id)
    store.close()


def test_a_web_server_that_is_gone_may_be_asked_again(server: ThreadingHTTPServer) -> None:
    store = AdapterStore(_url(server))
    server.shutdown()
    server.server_close()
    with pytest.raises(StoreUnavailableError, match="LoRA 'neon' cannot be read"):
        store.fetch_lora("neon")
    store.close()
