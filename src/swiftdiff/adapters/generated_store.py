"""Makes the store in which each adapter id of a trace has a file of its own, and lists the one behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from swiftdiff.adapters.mapping import AdapterMapping, Known
from swiftdiff.adapters.measured_times import AdapterKind
from swiftdiff.adapters.store import LORA_SUFFIX, AdapterStore, open_store
from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.errors import StorageError
from swiftdiff.models.registry import resolve_model

_PLACES: tuple[tuple[AdapterKind, str, str], ...] = (
    ("controlnet", "controlnets", ""),
    ("lora", "loras", LORA_SUFFIX),
)


def list_store(config: ServingConfig) -> tuple[Known, str]:
    """Return the ids of the adapters in a config's store, by kind, and its URL; empty if there is none.

    Raises:
        ModelError: The config's model is not there.
        AdapterError: Its store cannot be opened.
    """
    store = _open_original(config)
    if store is None:
        return {"controlnet": [], "lora": []}, ""
    known: Known = {"controlnet": store.controlnet_ids(), "lora": store.lora_ids()}
    store.close()
    return known, store.url


@contextmanager
def mapped_config(config: ServingConfig, mapping: AdapterMapping | None) -> Iterator[ServingConfig]:
    """Give the config that serves a mapping's ids; for ``alias``, of a store that is there meanwhile.

    That store lies in a temporary folder and holds links: 874 ids cost neither space nor time, each is a file
    with a path, an identity in caches and bytes to be read of its own. What the links of one adapter do share
    is the page cache, so that real disks look faster than with as many files; emulated ones do not.

    Args:
        config: Of the store that the mapping was made for; its emulation holds for the generated one too.
        mapping: What is mapped to what, or None.

    Raises:
        AdapterError: An adapter that the mapping needs is missing or incomplete.
        StorageError: The links cannot be written.
    """
    store = _open_original(config) if mapping is not None and mapping.how == "alias" else None
    if mapping is None or store is None:
        yield config
        return
    with ExitStack() as stack:
        stack.callback(store.close)  # what it downloaded is linked to until then
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swiftdiff-aliases-")))
            _link_all(mapping, store, folder)
        except OSError as error:
            raise StorageError(f"cannot make a store for --adapters alias: {error}") from error
        adapters = config.adapters.model_copy(update={"url": str(folder)})
        yield config.model_copy(update={"adapters": adapters})


def _open_original(config: ServingConfig) -> AdapterStore | None:
    """Open a config's store without its emulated distance."""
    url = config.adapters.url
    own = resolve_model(config.model).adapter_url if url is None else None
    return open_store(AdapterStoreConfig(url=url), own)


def _link_all(mapping: AdapterMapping, store: AdapterStore, folder: Path) -> None:
    for kind, below, suffix in _PLACES:
        (folder / below).mkdir()
        fetch = store.fetch_controlnet if kind == "controlnet" else store.fetch_lora
        adapters = mapping.adapters[kind].values()
        sources = {id_: fetch(id_).path.resolve() for id_ in sorted({each.weights for each in adapters})}
        for each in adapters:
            (folder / below / f"{each.id}{suffix}").symlink_to(sources[each.weights])
