"""Measures what recording a timeline costs: the same requests with and without it, in turn, in one process.

``python -m swiftdiff.bench.timeline_overhead`` prints the ratio with its interval, and JSON as its last line.
Writing the spans to disk is counted in full, although the engine does it beside the next request: the true
cost is lower. So that the answer does not hang on the machine's mood alone, the cost of one span is measured
by itself too, and multiplied with how many there are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swiftdiff.config import load_config
from swiftdiff.engine.session import resolve_paths
from swiftdiff.errors import ConfigError, SwiftdiffError
from swiftdiff.quality.statistics import Estimate, bootstrap_ratio
from swiftdiff.request import ImageRequest
from swiftdiff.systems import ServingSystem, build_system
from swiftdiff.telemetry.timeline import OFF, Timeline
from swiftdiff.telemetry.timeline_file import TimelineFile
from swiftdiff.trace import read_trace

_SPANS = 20_000  # for the cost of one


@dataclass(frozen=True)
class Overhead:
    """What recording costs.

    Attributes:
        ratio: Mean seconds with recording over those without, paired by request.
        median_ratio: Median of the pairs' own ratios.
        plain_s: Mean seconds of a request without recording.
        spans_a_request: How many there are.
        span_s: Seconds that one span costs, written to disk.
        computed_share: Of a request's time, from the last three.
    """

    ratio: Estimate
    median_ratio: float
    plain_s: float
    spans_a_request: float
    span_s: float
    computed_share: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def measure_overhead(
    system: ServingSystem,
    requests: Sequence[ImageRequest],
    images_root: Path,
    repeats: int,
    folder: Path,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Overhead:
    """Serve each request with and without recording, in alternating order, after one round for warming up.

    Args:
        system: Serves; its model is warm.
        requests: At least one.
        images_root: Folder that control images count from.
        repeats: Pairs of each request.
        folder: Gets the timeline.
        clock: Seconds from any moment.

    Raises:
        SwiftdiffError: A request cannot be served.
    """
    timeline = Timeline(clock)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    num_spans = 0
    with (
        TimelineFile(folder / "timeline.json", timeline) as file,
        ThreadPoolExecutor(1, thread_name_prefix="deliver") as writer,
    ):
        for request in requests:
            _serve(system, request, images_root)
        for pair, request in enumerate(itertools.chain.from_iterable([requests] * repeats)):
            for is_recorded in (pair % 2 == 0, pair % 2 == 1):
                system.record_to(timeline if is_recorded else OFF)
                timeline.tell({"request_id": request.request_id})
                began = clock()
                _serve(system, request, images_root)
                if is_recorded:
                    num_spans += timeline.pending
                    writer.submit(file.flush).result()
                seconds[is_recorded].append(clock() - began)
        system.record_to(OFF)
    ratio = bootstrap_ratio(seconds[True], seconds[False])
    assert ratio is not None  # requests take time
    plain_s = float(np.mean(seconds[False]))
    spans_a_request = num_spans / len(seconds[True])
    span_s = measure_span(folder)
    return Overhead(
        ratio=ratio,
        median_ratio=float(np.median(np.divide(seconds[True], seconds[False]))),
        plain_s=plain_s,
        spans_a_request=spans_a_request,
        span_s=span_s,
        computed_share=spans_a_request * span_s / plain_s,
    )


def measure_span(folder: Path) -> float:
    """Return the seconds that one span costs, from reading the clock to the disk."""
    timeline = Timeline()
    with TimelineFile(folder / "spans.json", timeline) as file:
        began = time.perf_counter()
        for step in range(_SPANS):
            timeline.tell({"request_id": "r", "step": step})
            with timeline.span("step"):
                pass
        file.flush()
        return (time.perf_counter() - began) / _SPANS


def _serve(system: ServingSystem, request: ImageRequest, images_root: Path) -> None:
    served = system.serve(request, images_root)
    if callable(served.images):
        served.images()
    system.finish()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a config on a trace's first requests; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m swiftdiff.bench.timeline_overhead", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("workloads/configs/swiftdiff.toml"))
    parser.add_argument("--trace", type=Path, default=Path("workloads/quickstart.jsonl"))
    parser.add_argument("--limit", type=int, default=8, help="the trace's first requests (default: 8)")
    parser.add_argument("--repeats", type=int, default=10, help="pairs of each request (default: 10)")
    parser.add_argument("--out", type=Path, help="a file for the numbers as JSON")
    given = parser.parse_args(argv)
    try:
        overhead = _run(given.config, given.trace, given.limit, given.repeats)
    except SwiftdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    numbers = {"config": given.config.name, "trace": given.trace.name} | overhead.to_json()
    if given.out is not None:
        given.out.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(describe(overhead))
    print(json.dumps(numbers))
    return 0


def describe(overhead: Overhead) -> str:
    """Return the numbers in two sentences."""
    ratio = overhead.ratio
    return (
        f"Recording costs {ratio.value - 1:+.2%} "
        f"(95 % interval {ratio.low - 1:+.2%} to {ratio.high - 1:+.2%}; "
        f"median of {ratio.count} pairs {overhead.median_ratio - 1:+.2%}).\n"
        f"Computed: {overhead.spans_a_request:.0f} spans a request at {overhead.span_s * 1e6:.2f} µs are "
        f"{overhead.computed_share:.3%} of its {overhead.plain_s:.3f} s."
    )


def _run(config_path: Path, trace: Path, limit: int, repeats: int) -> Overhead:
    for name, value in (("--limit", limit), ("--repeats", repeats)):
        if value < 1:
            raise ConfigError.for_field(name, value, "1 or more")
    requests = list(itertools.islice(read_trace(trace), limit))
    if not requests:
        raise ConfigError(f"{trace} has no requests")
    system = build_system(resolve_paths(load_config(config_path), config_path.parent))
    try:
        system.warm_up()
        with tempfile.TemporaryDirectory() as folder:
            return measure_overhead(system, requests, trace.parent, repeats, Path(folder))
    finally:
        system.close()


if __name__ == "__main__":
    raise SystemExit(main())
