"""Owns where adapter files come from: ids in, local files out; can emulate how far away a store is."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from swiftdiff.errors import AdapterError
from swiftdiff.validation import unknown_name

CONTROLNET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
LORA_SUFFIX = ".safetensors"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class FetchedAdapter:
    """An adapter that lies on the local disk.

    Attributes:
        id: Its id in the store.
        path: A LoRA's file, or a ControlNet's folder as `ControlNetModel.from_pretrained` reads it.
        num_bytes: Size of its files together.
        load_s: Seconds the fetch took, emulated latency and bandwidth included.
    """

    id: str
    path: Path
    num_bytes: int
    load_s: float


class StoreUnavailableError(AdapterError):
    """The store did not give what it may give when asked again."""


class AdapterStore:
    """Adapters below one fsspec URL: ``controlnets/<id>/…`` and ``loras/<id>.safetensors``.

    Nothing is cached here: every fetch pays for the store, so that a cache above it shows what it saves.
    Files of a local folder are used where they lie; those of a remote store are copied to a temporary folder.

    Args:
        url: Any fsspec URL, chained ones too (``zip://::https://…``), or a local folder.
        latency_ms: Emulated time to the first byte of each fetch, added to the real one.
        bandwidth_mb_s: Emulated bandwidth in 10^6 bytes a second; None adds nothing.
        sleep: Waits for the emulated time.
        clock: Seconds from any moment, to measure fetches with.

    Raises:
        AdapterError: fsspec does not know the URL.
    """

    def __init__(
        self,
        url: str,
        latency_ms: float = 0.0,
        bandwidth_mb_s: float | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.url = url
        self._latency_s = latency_ms / 1000
        self._bandwidth = bandwidth_mb_s * 1e6 if bandwidth_mb_s is not None else None
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
        return sorted(name for name in self._list("controlnets") if _ID.fullmatch(name))

    def lora_ids(self) -> list[str]:
        """Return the ids of the store's LoRAs, sorted; empty if the store cannot be listed."""
        names = (n.removesuffix(LORA_SUFFIX) for n in self._list("loras") if n.endswith(LORA_SUFFIX))
        return sorted(name for name in names if _ID.fullmatch(name))

    def fetch_controlnet(self, adapter_id: str) -> FetchedAdapter:
        """Bring a ControlNet to the local disk.

        Raises:
            AdapterError: The id is malformed or unknown.
            StoreUnavailableError: Its files cannot be read now.
        """
        _check_id("ControlNet", adapter_id)
        names = [f"controlnets/{adapter_id}/{name}" for name in CONTROLNET_FILES]
        paths, num_bytes, load_s = self._fetch("ControlNet", adapter_id, names)
        return FetchedAdapter(adapter_id, paths[0].parent, num_bytes, load_s)

    def fetch_lora(self, adapter_id: str) -> FetchedAdapter:
        """Bring a LoRA to the local disk.

        Raises:
            AdapterError: The id is malformed or unknown.
            StoreUnavailableError: Its file cannot be read now.
        """
        _check_id("LoRA", adapter_id)
        paths, num_bytes, load_s = self._fetch("LoRA", adapter_id, [f"loras/{adapter_id}{LORA_SUFFIX}"])
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

    def _fetch(self, kind: str, adapter_id: str, names: list[str]) -> tuple[list[Path], int, float]:
        began = self._clock()
        try:
            sizes = [int(self._filesystem.size(f"{self._prefix}{name}") or 0) for name in names]
            paths = [self._bring(name) for name in names]
        except FileNotFoundError as error:
            raise self._missing(kind, adapter_id, names) from error
        except Exception as error:  # each filesystem raises its own kinds
            raise StoreUnavailableError(
                f"{kind} {adapter_id!r} cannot be read from {self.url}: {error}"
            ) from error
        wait_s = self._latency_s + (sum(sizes) / self._bandwidth if self._bandwidth is not None else 0.0)
        if wait_s > 0:
            self._sleep(wait_s)
        return paths, sum(sizes), self._clock() - began

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
        # Renamed when complete: whoever still maps the last copy of this file keeps it whole.
        partial = local.with_name(local.name + ".part")
        self._filesystem.get_file(remote, str(partial))
        return partial.replace(local)

    def _missing(self, kind: str, adapter_id: str, names: list[str]) -> AdapterError:
        known = self.controlnet_ids() if kind == "ControlNet" else self.lora_ids()
        if adapter_id in known:
            wanted = " and ".join(PurePosixPath(name).name for name in names)
            return AdapterError(f"{kind} {adapter_id!r} in {self.url} is incomplete: it needs {wanted}")
        if not known:
            return AdapterError(
                f"no {kind} {adapter_id!r} in the adapter store {self.url} ({names[0]} is missing)"
            )
        return AdapterError(f"{unknown_name(kind, adapter_id, known)} (adapter store {self.url})")


def _check_id(kind: str, adapter_id: str) -> None:
    if not _ID.fullmatch(adapter_id):
        allowed = "1 to 128 letters, digits, '.', '_' or '-', not starting with '.' or '-'"
        raise AdapterError.for_field(f"{kind} id", adapter_id, allowed)
