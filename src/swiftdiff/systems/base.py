"""Owns what every system offers the engine: serve one request, then clean up after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from PIL.Image import Image

from swiftdiff.request import AdapterRecord, ImageRequest, LatentCacheRecord
from swiftdiff.telemetry.timeline import Timeline

Exactness = Literal["exact", "approximate"]

#: Returns the oldest requests that have arrived and wait, in order, at most so many; for the serving thread.
Waiting = Callable[[int], Sequence[ImageRequest]]

#: Draws the pictures of a request as they are before a step.
Preview = Callable[[], list[Image]]

#: Called before a step with its number, how many there are, and a way to draw what there is so far; for the
#: serving thread. What it raises ends the request, as any failure does.
OnStep = Callable[[int, int, Preview], None]


@dataclass(frozen=True)
class Served:
    """What serving a request gave.

    Attributes:
        images: The pictures, or, if they are decoded while the system serves the next request, a function
            that waits for them; number ``i`` has the seed ``request.seed + i``.
        stages: Seconds by stage name, as far as the system measured them; decoding is among them when
            ``images`` has returned.
        bytes_loaded: Bytes of adapters fetched from the store.
        adapters: How each adapter came, for systems that tell.
        latent_cache: What a cache of latents had for it, for systems with one.
        graphs_captured: Graphs that were traced, captured or compiled meanwhile, for systems that tell.
    """

    images: list[Image] | Callable[[], list[Image]]
    stages: dict[str, float]
    bytes_loaded: int
    adapters: tuple[AdapterRecord, ...] = ()
    latent_cache: LatentCacheRecord | None = None
    graphs_captured: int | None = None


class ServingSystem(Protocol):
    """One way of serving requests, one at a time. Used by one thread.

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

    def watch(self, waiting: Waiting) -> None:
        """Learn how to ask what comes next, to begin to load for it while another request is served."""
        ...

    def attend(self, on_step: OnStep) -> None:
        """Call this before every step from now on; stock pipelines do before every step but the first."""
        ...

    def record_to(self, timeline: Timeline) -> None:
        """Show in a timeline what is done from now on; called between requests."""
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

    def stages_so_far(self, request_id: str) -> dict[str, float]:
        """Return what a request that is served now took until now, by stage, as far as it was measured.

        From any thread; nothing if it is not served now.
        """
        ...

    def finish(self) -> None:
        """Undo what the last served request did to the model, also if it failed; timed as ``restore``."""
        ...

    def close(self) -> None:
        """Give back memory and temporary files."""
        ...


@runtime_checkable
class BatchingSystem(ServingSystem, Protocol):
    """A system that can make the pictures of several requests at once."""

    def serve_batch(
        self, requests: Sequence[ImageRequest], images_root: Path, on_steps: Sequence[OnStep | None]
    ) -> list[Served | Exception]:
        """Make the pictures of requests that agree in their `batch_key` and in their own switches.

        Each request's pictures are those that it gets alone, up to float rounding.

        Args:
            requests: As `serve` takes them.
            images_root: As for `serve`.
            on_steps: One for each request, called before every step with a preview of that request alone, in
                place of what `attend` was given. What it raises ends that request and no other.

        Returns:
            For each request what it got, or why it got nothing. Stages are those of all of them together.

        Raises:
            Exception: Nothing came of any of them. After `finish` each can be served alone.
        """
        ...
