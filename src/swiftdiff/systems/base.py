"""Owns what every system offers the engine: serve one request, then clean up after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from PIL.Image import Image

from swiftdiff.request import ImageRequest

Exactness = Literal["exact", "approximate"]


@dataclass(frozen=True)
class Served:
    """What serving a request gave.

    Attributes:
        images: The pictures; number ``i`` has the seed ``request.seed + i``.
        stages: Seconds by stage name, as far as the system measured them.
        bytes_loaded: Bytes of adapters fetched from the store.
    """

    images: list[Image]
    stages: dict[str, float]
    bytes_loaded: int


class ServingSystem(Protocol):
    """One way of serving requests. Used by one thread; every call belongs to the request served last.

    Attributes:
        name: How tables call it.
        exactness: ``exact`` gives the stock pipeline's pictures up to float rounding; ``approximate`` does
            not.
        num_devices: Devices that a request occupies while it is served, for device-seconds.
    """

    name: str
    exactness: Exactness
    num_devices: int

    def warm_up(self) -> None:
        """Pay one-time costs (lazy imports, allocator, kernels) before anything is measured."""
        ...

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        """Make a request's pictures.

        Args:
            request: A request that `validate_servable` accepts.
            images_root: Folder that the paths of control images count from.

        Raises:
            SwiftdiffError: The request cannot be served. After `finish` the next one can.
        """
        ...

    def finish(self) -> None:
        """Undo what the last request did to the model, served or failed; timed as ``restore``."""
        ...

    def close(self) -> None:
        """Give back memory and temporary files."""
        ...
