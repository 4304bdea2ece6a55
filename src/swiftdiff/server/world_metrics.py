"""Owns what ``GET /metrics`` tells Prometheus of worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class WorldMetrics:
    """Counts of all worlds of a server, in a registry of their own. Used by many threads.

    Args:
        worlds: Returns how many run now.
        viewers: Returns how many watch now.
        cache_bytes: Returns what their caches take now.

    Attributes:
        registry: Holds them.
    """

    def __init__(
        self, worlds: Callable[[], int], viewers: Callable[[], int], cache_bytes: Callable[[], int]
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self._blocks = Histogram(
            "swiftdiff_world_block_seconds", "From asking for a block to its pixels",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._frames = Counter("swiftdiff_world_frames", "Frames shown, by world", registry=registry)
        self._offered = Counter("swiftdiff_world_frames_offered", "Frames for viewers", registry=registry)
        self._missed = Counter(
            "swiftdiff_world_frames_missed",
            "Of these, dropped: the viewer was slow",
            registry=registry,
        )
        self._steered = Counter("swiftdiff_world_steered", "Actions and prompts taken", registry=registry)
        self._opened = Counter("swiftdiff_worlds_opened", "Worlds begun", registry=registry)
        self._refused = Counter("swiftdiff_world_refusals", "What was refused", ["kind"], registry=registry)
        registry.register(_Gauges(worlds, viewers, cache_bytes))

    def opened(self) -> None:
        """Count a world that began."""
        self._opened.inc()

    def refused(self, kind: str) -> None:
        """Count a refusal, by kind."""
        self._refused.labels(kind).inc()

    def made(self, seconds: float) -> None:
        """Count a block."""
        self._blocks.observe(seconds)

    def shown(self, num_viewers: int) -> None:
        """Count a frame and those it was shown to."""
        self._frames.inc()
        self._offered.inc(num_viewers)

    def missed(self) -> None:
        """Count a frame that a viewer was too slow for."""
        self._missed.inc()

    def steered(self) -> None:
        """Count an action or prompt that was taken."""
        self._steered.inc()


class _Gauges(Collector):
    """What is read when Prometheus asks."""

    def __init__(
        self, worlds: Callable[[], int], viewers: Callable[[], int], cache_bytes: Callable[[], int]
    ) -> None:
        self._worlds = worlds
        self._viewers = viewers
        self._cache_bytes = cache_bytes

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        yield GaugeMetricFamily("swiftdiff_worlds", "Worlds that run", self._worlds())
        yield GaugeMetricFamily("swiftdiff_world_viewers", "Clients that watch", self._viewers())
        yield GaugeMetricFamily(
            "swiftdiff_world_cache_bytes", "Keys and values kept for worlds", self._cache_bytes()
        )
