"""Owns where adapter files come from: ids in, local files out."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from swiftdiff.adapters.emulation import FetchTimes
from swiftdiff.adapters.measured_times import AdapterKind
from swiftdiff.config import AdapterStoreConfig, StoreEmulationConfig
from swiftdiff.errors import AdapterError
from swiftdiff.validation import unknown_name

CONTROLNET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
LORA_SUFFIX = ".safetensors"
ADAPTER_NAMES: dict[AdapterKind, str] = {"controlnet": "ControlNet", "lora": "LoRA"}
ADAPTER_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class FetchedAdapter:
    """An adapter that lies on the local disk.

    Attributes:
        id: Its id in the store.
        path: A LoRA's file, or a ControlNet's folder as `ControlNetModel.from_pretrained` reads it.
        num_bytes: Size of its files together.
        load_s: Seconds the fetch took, emulated ones included.
    """

    id: str
    path: Path
    num_bytes: int
    load_s: float


class UnknownAdapterError(AdapterError):
    """The store does not have an adapter of that id, or no store could."""


class StoreUnavailableError(AdapterError):
    """The store did not give what it may give when asked again."""


class AdapterStore:
    """Adapters below one fsspec URL: ``controlnets/<id>/…`` and ``loras/<id>.safetensors``.

    Nothing is cached here: every fetch pays for the store, so that a cache above it shows what it saves.
    Files of a local folder are used where they lie; those of a remote store are copied to a temporary folder.

    Args:
        url: Any fsspec URL, chained ones too (``zip://::https://…``), or a local folder.
        emulate: Distance of a remote store, added to the time that each fetch really takes.
        sleep: Waits for the emulated time.
        clock: Seconds from any moment, to measure fetches with.

    Raises:
        AdapterError: fsspec does not know the URL.
        ConfigError: A file of measured times cannot be used.
    """

    def __init__(
        self,
        url: str,
        emulate: StoreEmulationConfig | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.url = url
        self._times = FetchTimes(emulate or StoreEmulationConfig())
        self._sleep = sleep
        self._clock = clock
        self._downloads: tempfile.TemporaryDirectory[str] | None = None
        self._downloads_lock = threading.Lock()  # several threads fetch at once
        try:
            filesystem, root = fsspec.core.url_to_fs(url)
        except Exception as error:
            raise AdapterError(f"adapter store {url!r} cannot be opened: {error}") from error
        self._filesystem: fsspec.AbstractFileSystem = filesystem
        self._prefix = f"{str(root).rstrip('/')}/" if root else ""  # the root of an archive is empty

    def controlnet_ids(self) -> list[str]:
        """Return the ids of the store's ControlNets, sorted; empty if the store cannot be listed."""
        return sorted(name for name in self._list("controlnets") if ADAPTER_ID.fullmatch(name))

    def lora_ids(self) -> list[str]:
        """Return the ids of the store's LoRAs, sorted; empty if the store cannot be listed."""
        names = (n.removesuffix(LORA_SUFFIX) for n in self._list("loras") if n.endswith(LORA_SUFFIX))
        return sorted(name for name in names if ADAPTER_ID.fullmatch(name))

    def fetch_controlnet(self, adapter_id: str) -> FetchedAdapter:
        """Bring a ControlNet to the local disk.

        Raises:
            AdapterError: The id is malformed or unknown.
            StoreUnavailableError: Its files cannot be read now.
        """
        names = [f"controlnets/{adapter_id}/{name}" for name in CONTROLNET_FILES]
        paths, num_bytes, load_s = self._fetch("controlnet", adapter_id, names)
        return FetchedAdapter(adapter_id, paths[0].parent, num_bytes, load_s)

    def fetch_lora(self, adapter_id: str) -> FetchedAdapter:
        """Bring a LoRA to the local disk.

        Raises:
            AdapterError: The id is malformed or unknown.
            StoreUnavailableError: Its file cannot be read now.
        """
        paths, num_bytes, load_s = self._fetch("lora", adapter_id, [f"loras/{adapter_id}{LORA_SUFFIX}"])
        return FetchedAdapter(adapter_id, paths[0], num_bytes, load_s)

    def discard(self, fetched: FetchedAdapter) -> None:
        """Delete an adapter's local copy, if it is a download: who holds it in memory needs no file."""
        if self._downloads is not None and Path(self._downloads.name) in fetched.path.parents:
            files = [fetched.path] if fetched.path.is_file() else list(fetched.path.glob("*"))
            for file in files:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete what was downloaded."""
        if self._downloads is not None:
            self._downloads.cleanup()
            self._downloads = None

    def _list(self, folder: str) -> list[str]:
        try:
            entries = self._filesystem.ls(f"{self._prefix}{folder}", detail=False)
        except Exception:  # a store that cannot list (plain HTTP, say) still serves by id
            return []
        return [PurePosixPath(str(entry).rstrip("/")).name for entry in entries]

    def _fetch(
        self, kind: AdapterKind, adapter_id: str, names: Sequence[str]
    ) -> tuple[list[Path], int, float]:
        _check_id(kind, adapter_id)
        began = self._clock()
        try:
            paths = [self._bring(name) for name in names]
            num_bytes = sum(path.stat().st_size for path in paths)
        except FileNotFoundError as error:
            raise self._missing(kind, adapter_id, names) from error
        except Exception as error:  # each filesystem raises its own kinds
            raise StoreUnavailableError(
                f"{ADAPTER_NAMES[kind]} {adapter_id!r} cannot be read from {self.url}: {error}"
            ) from error
        wait_s = self._times.draw(kind, adapter_id, num_bytes)
        if wait_s > 0:
            self._sleep(wait_s)
        return paths, num_bytes, self._clock() - began

    def _bring(self, name: str) -> Path:
        remote = f"{self._prefix}{name}"
        if isinstance(self._filesystem, LocalFileSystem):
            return Path(remote)
        with self._downloads_lock:
            if self._downloads is None:
                self._downloads = tempfile.TemporaryDirectory(prefix="swiftdiff-adapters-")
            downloads = self._downloads
        local = Path(downloads.name) / name
        local.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when complete: whoever still maps the last copy of this file keeps it whole. Each thread
        # writes a file of its own, for two may fetch one adapter.
        partial = local.with_name(f"{local.name}.{threading.get_ident()}.part")
        self._filesystem.get_file(remote, str(partial))
        return partial.replace(local)

    def _missing(self, kind: AdapterKind, adapter_id: str, names: Sequence[str]) -> AdapterError:
        known = self.controlnet_ids() if kind == "controlnet" else self.lora_ids()
        name = ADAPTER_NAMES[kind]
        if adapter_id in known:
            wanted = " and ".join(PurePosixPath(file).name for file in names)
            return AdapterError(f"{name} {adapter_id!r} in {self.url} is incomplete: it needs {wanted}")
        if not known:
            return AdapterError(
                f"no {name} {adapter_id!r} in the adapter store {self.url} ({names[0]} is missing)"
            )
        return UnknownAdapterError(f"{unknown_name(name, adapter_id, known)} (adapter store {self.url})")


def open_store(config: AdapterStoreConfig, default_url: str | None) -> AdapterStore | None:
    """Open the store that a config names.

    Args:
        config: Which store, and how far away it is made to be.
        default_url: The model's own adapters, for a config without a URL; None if it has none.

    Returns:
        The store; None if neither names one.

    Raises:
        AdapterError: fsspec does not know the URL.
        ConfigError: A file of measured times cannot be used.
    """
    url = config.url if config.url is not None else default_url
    return None if url is None else AdapterStore(url, config.emulate)


def _check_id(kind: AdapterKind, adapter_id: str) -> None:
    if not ADAPTER_ID.fullmatch(adapter_id):
        allowed = "1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'"
        raise UnknownAdapterError.for_field(f"{ADAPTER_NAMES[kind]} id", adapter_id, allowed)
