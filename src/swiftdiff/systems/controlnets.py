"""Keeps ControlNets in memory between requests, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from diffusers import ControlNetModel

from swiftdiff.adapters.store import FetchedAdapter


class ControlNetCache:
    """Stock ControlNets by id, fetched from the store when first wanted.

    Args:
        fetch: Brings a ControlNet's folder to the local disk.
        capacity: ControlNets kept between requests; those of the running request are held besides.
        load: Makes a model of a folder.
    """

    def __init__(
        self,
        fetch: Callable[[str], FetchedAdapter],
        capacity: int,
        load: Callable[[FetchedAdapter], ControlNetModel],
    ) -> None:
        self._fetch = fetch
        self._capacity = capacity
        self._load = load
        self._models: OrderedDict[str, ControlNetModel] = OrderedDict()

    def get(self, adapter_id: str) -> tuple[ControlNetModel, int]:
        """Return a ControlNet and the bytes that were fetched for it: 0 if it was at hand.

        Raises:
            AdapterError: It is unknown or damaged.
        """
        if adapter_id in self._models:
            self._models.move_to_end(adapter_id)
            return self._models[adapter_id], 0
        fetched = self._fetch(adapter_id)
        model = self._load(fetched)
        self._models[adapter_id] = model
        while len(self._models) > self._capacity:
            self._models.popitem(last=False)
        return model, fetched.num_bytes

    def clear(self) -> None:
        """Forget all of them."""
        self._models.clear()
