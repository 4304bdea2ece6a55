"""Owns what ``GET /metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from swiftdiff.request import AdapterRecord
from swiftdiff.server.batching import Kind, Measured
from swiftdiff.telemetry.memory import peak_bytes_by_device, peak_host_bytes

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PICTURES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
_STEPS = (0, 1, 2, 5, 10, 15, 20, 30, 50, 100)


class Metrics:
    """Counts of one server, in a registry of its own.

    Args:
        queue_size: Places for waiting requests.
        waiting: Returns how many wait now.
        in_service: Returns how many are served now.
        measured: Returns how long pictures took in batches of each size.
    """

    def __init__(
        self,
        queue_size: int,
        waiting: Callable[[], int],
        in_service: Callable[[], int],
        measured: Callable[[], Sequence[Measured]],
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "swiftdiff_requests", "Image requests by HTTP status; 499: the client left", ["status"],
            registry=registry,
        )  # fmt: skip
        self._errors = Counter(
            "swiftdiff_errors", "Image requests that gave no picture, by kind", ["kind"], registry=registry
        )
        self._pictures = Counter("swiftdiff_pictures", "Pictures answered", registry=registry)
        self._partials = Counter("swiftdiff_partial_pictures", "Unfinished pictures sent", registry=registry)
        self._queue_wait = Histogram(
            "swiftdiff_queue_wait_seconds", "From arrival to service", buckets=_SECONDS, registry=registry
        )
        self._latency = Histogram(
            "swiftdiff_request_seconds", "From arrival to answer", buckets=_SECONDS, registry=registry
        )
        self._stages = Histogram(
            "swiftdiff_stage_seconds", "Stages of requests", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._loads = Counter(
            "swiftdiff_adapter_loads",
            "Adapters that requests used; source cache is a hit, store and shared are misses",
            ["kind", "source"],
            registry=registry,
        )
        self._bytes = Counter(
            "swiftdiff_adapter_bytes", "Bytes of adapters from the store", ["kind"], registry=registry
        )
        self._patch_step = Histogram(
            "swiftdiff_lora_patch_step", "First step with a LoRA", buckets=_STEPS, registry=registry
        )
        self._batches = Histogram(
            "swiftdiff_batch_pictures", "Pictures denoised as one", buckets=_PICTURES, registry=registry
        )
        registry.register(_Gauges(queue_size, waiting, in_service, measured))
        ProcessCollector(registry=registry)

    def answered(self, status: int, kind: str | None) -> None:
        """Count an image request that ended; ``kind`` of error, None if there was none."""
        self._requests.labels(str(status)).inc()
        if kind is not None:
            self._errors.labels(kind).inc()

    def served(self, num_pictures: int, queue_wait_s: float, latency_s: float) -> None:
        """Count a request that was served."""
        self._pictures.inc(num_pictures)
        self._queue_wait.observe(queue_wait_s)
        self._latency.observe(latency_s)

    def stage(self, name: str, seconds: float) -> None:
        """Count a stage of a request."""
        self._stages.labels(name).observe(seconds)

    def batch(self, num_pictures: int) -> None:
        """Count a service: of one request, or of several as one."""
        self._batches.observe(num_pictures)

    def partial(self) -> None:
        """Count a picture of an unfinished step."""
        self._partials.inc()

    def adapter(self, adapter: AdapterRecord) -> None:
        """Count how an adapter came."""
        self._loads.labels(adapter.kind, adapter.source).inc()
        self._bytes.labels(adapter.kind).inc(adapter.bytes_loaded)
        if adapter.step_patched is not None:
            self._patch_step.observe(adapter.step_patched)

    def include(self, others: Collector) -> None:
        """Tell of another part of the server too."""
        self._registry.register(others)

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """What is read when Prometheus asks."""

    def __init__(
        self,
        queue_size: int,
        waiting: Callable[[], int],
        in_service: Callable[[], int],
        measured: Callable[[], Sequence[Measured]],
    ) -> None:
        self._queue_size = queue_size
        self._waiting = waiting
        self._in_service = in_service
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        yield GaugeMetricFamily("swiftdiff_queue_places", "Places in the queue", self._queue_size)
        yield GaugeMetricFamily("swiftdiff_queue_waiting", "Requests that wait", self._waiting())
        yield GaugeMetricFamily("swiftdiff_in_service", "Requests in service", self._in_service())
        peaks = GaugeMetricFamily("swiftdiff_peak_memory_bytes", "Most memory held so far", labels=["device"])
        for device, peak in ({"host": peak_host_bytes()} | peak_bytes_by_device()).items():
            peaks.add_metric([device], peak)
        yield peaks
        batches = GaugeMetricFamily(
            "swiftdiff_batch_seconds_per_picture",
            "Median of the last services, by kind of request and pictures denoised as one",
            labels=[*Kind._fields, "pictures"],
        )
        for kind, pictures, seconds in self._measured():
            batches.add_metric([*map(str, kind), str(pictures)], seconds)
        yield batches
