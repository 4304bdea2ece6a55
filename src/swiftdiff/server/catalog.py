"""Owns which adapters requests may name: what the store lists, read again now and then."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from swiftdiff.adapters.store import ADAPTER_ID, AdapterStore, open_store
from swiftdiff.config import ServingConfig
from swiftdiff.engine.clock import Clock
from swiftdiff.models.registry import resolve_model

FRESH_S = 10.0  # a store that is asked more often would be asked by whoever sends unknown ids


@dataclass(frozen=True)
class Listing:
    """The ids of a store's adapters, sorted; empty where the store cannot be listed."""

    controlnets: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()


class AdapterCatalog:
    """The adapters of one system. Used by many threads.

    Args:
        config: The system.
        clock: The time.

    Raises:
        ModelError: The config's model is missing or damaged.
        AdapterError: Its adapter store cannot be opened.
    """

    def __init__(self, config: ServingConfig, clock: Clock) -> None:
        source = resolve_model(config.model)
        self.native_size = source.native_size
        self._store: AdapterStore | None = open_store(config.adapters, source.adapter_url)
        self._clock = clock
        self._lock = threading.Lock()
        self._listing = Listing()
        self._read_at_s: float | None = None

    def listing(self) -> Listing:
        """Return what the store holds, as it was some seconds ago at most; may wait for the store."""
        with self._lock:
            now_s = self._clock.now()
            if self._store is not None and (self._read_at_s is None or now_s - self._read_at_s > FRESH_S):
                self._listing = Listing(tuple(self._store.controlnet_ids()), tuple(self._store.lora_ids()))
                self._read_at_s = now_s
            return self._listing

    def unknown(self, controlnets: tuple[str, ...], loras: tuple[str, ...]) -> tuple[str, int] | None:
        """Return the field and index of the first id that no request may name, or None.

        A store that cannot be listed is asked for any well-formed id; ids are never paths.
        """
        listing = self.listing()
        for field, wanted, known in (
            ("controlnets", controlnets, listing.controlnets),
            ("loras", loras, listing.loras),
        ):
            can_ask = self._store is not None and not known
            for index, adapter_id in enumerate(wanted):
                if adapter_id not in known and not (can_ask and ADAPTER_ID.fullmatch(adapter_id)):
                    return field, index
        return None

    def close(self) -> None:
        """Give the store back."""
        if self._store is not None:
            self._store.close()
