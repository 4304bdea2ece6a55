"""Runs an import: a source in any known format in, a trace with its provenance and control images out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import swiftdiff
from swiftdiff.errors import ConfigError, TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace.content import ContentPool, trace_stem
from swiftdiff.trace.files import Progress
from swiftdiff.trace.provenance import Provenance
from swiftdiff.trace.reader import source_of
from swiftdiff.trace.writer import write_trace
from swiftdiff.validation import unknown_name

from . import IMPORTERS
from .filling import Filler
from .options import ImportOptions
from .prompts import read_prompts
from .sorting import Timed, sort_by_arrival
from .source import Dropped, Reading, SourceRequest
from .timestamps import Clock, check_order

# Options that only some formats have, and which.
_FORMATS_WITH = {"scene": ("katz",), "join": ("gentd26",), "columns": ("csv",)}


@dataclass(frozen=True)
class ImportSummary:
    """What an import made.

    Attributes:
        trace: The trace.
        num_requests: In it.
        num_images: Pictures that they ask for.
        num_control_images: Control images drawn beside it.
        duration_s: Seconds from the first arrival to the last.
        provenance: Its first line: what was filled in and what dropped.
    """

    trace: Path
    num_requests: int
    num_images: int
    num_control_images: int
    duration_s: float
    provenance: Provenance


def import_trace(
    format_name: str, source: Path, output: Path, options: ImportOptions, progress: Progress
) -> ImportSummary:
    """Import ``source`` and write the trace ``output``: whole, or not at all if anything is wrong.

    Memory does not grow with the number of requests.

    Raises:
        ConfigError: The format is unknown, or an option does not fit it or the source.
        TraceError: The source is wrong, or nothing of it is left.
        StorageError: The trace cannot be written.
    """
    if format_name not in IMPORTERS:
        raise ConfigError(unknown_name("format", format_name, IMPORTERS))
    for name, formats in _FORMATS_WITH.items():
        if getattr(options, name) is not None and format_name not in formats:
            raise ConfigError(f"--{name} has a meaning only with {' and '.join(formats)}")
    reading = IMPORTERS[format_name](source, options, progress)
    inputs = reading.files if options.prompts is None else (*reading.files, options.prompts)
    if output.resolve() in {file.resolve() for file in inputs}:
        raise ConfigError(f"{output} would overwrite what it is made from; give another --out")
    run = _Import(format_name, reading, inputs, output, options)
    write_trace(output, run.requests(), run.provenance)
    return ImportSummary(
        trace=output,
        num_requests=run.num_requests,
        num_images=run.num_images,
        num_control_images=run.num_control_images,
        duration_s=run.last_ms / 1000,
        provenance=run.provenance(),
    )


class _Import:
    """One import under way: what the source has goes through it request by request, and is counted."""

    def __init__(
        self,
        format_name: str,
        reading: Reading,
        inputs: Sequence[Path],
        output: Path,
        options: ImportOptions,
    ) -> None:
        _check_fit(reading, options)
        self._format_name = format_name
        self._reading = reading
        self._inputs = inputs
        self._sources = tuple(source_of(path) for path in inputs)
        self._output = output
        self._options = options
        self._clock = Clock(options.time_unit, reading.relative_unit)
        self._pool = ContentPool(options.seed, stem=trace_stem(output))
        prompts = read_prompts(options.prompts) if options.prompts is not None else []
        self._filler = Filler(options, self._pool, prompts, lists_controlnets=reading.lists_controlnets)
        self._dropped: Counter[str] = Counter()
        self.num_requests = self.num_images = self.num_control_images = 0
        self.last_ms = 0.0

    def requests(self) -> Iterator[ImageRequest]:
        """Yield the trace's requests and, after the last one, draw their control images."""
        timed: Iterator[Timed] = self._timed()
        if self._options.sort:
            timed = sort_by_arrival(timed, self._output.parent)
        first_ms = previous_ms = None
        for at_ms, _, row in timed:
            if first_ms is None or previous_ms is None:
                first_ms = previous_ms = at_ms
            check_order(previous_ms, at_ms, row.where)
            previous_ms = at_ms
            self.last_ms = round(at_ms - first_ms, 3)
            request = self._filler.request(row, self.last_ms, self.num_requests)
            self.num_requests += 1
            self.num_images += request.num_images
            yield request
            if self.num_requests == self._options.limit:
                break
        if not self.num_requests:
            raise TraceError(f"{self._inputs[0]}: no requests to import{self._reasons()}")
        self.num_control_images = self._pool.write_images(self._output.parent)

    def provenance(self) -> Provenance:
        """Return what the trace's first line says, once all requests went through."""
        given = self._options.model_dump(mode="json", exclude={"seed"}, exclude_defaults=True)
        if self._options.prompts is not None:
            given["prompts"] = self._options.prompts.name
        return Provenance(
            command=f"trace import {self._format_name}",
            swiftdiff=swiftdiff.__version__,
            sources=self._sources,
            options=given,
            seed=self._options.seed,
            filled_in=self._filled_in(),
            dropped=dict(sorted(self._dropped.items())),
        )

    def _timed(self) -> Iterator[Timed]:
        rate = self._options.request_rate
        rng = np.random.default_rng([self._options.seed, 3])
        at_ms = 0.0
        for number, row in enumerate(self._kept()):
            if rate is None:
                at_ms = self._clock.milliseconds(row.timestamp, row.where)
            elif number:
                at_ms += 1000 * float(rng.exponential(1 / rate))
            yield at_ms, number, row

    def _kept(self) -> Iterator[SourceRequest]:
        wanted = self._options.base_model
        for row in self._reading.rows:
            if isinstance(row, Dropped):
                self._dropped[row.reason] += 1
            elif wanted is not None and row.base_model != wanted:
                self._dropped["of another base model"] += 1
            else:
                yield row

    def _filled_in(self) -> dict[str, str]:
        filled = self._filler.filled_in(self.num_requests)
        if self._options.request_rate is not None:
            filled["timestamp"] = f"Poisson arrivals, {self._options.request_rate:g} a second"
        elif self._options.time_unit is None:
            filled["time unit"] = f"detected: {self._clock.kind}"
        return filled

    def _reasons(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self._dropped.items()))
        return f"; dropped: {reasons}" if reasons else "; it is empty"


def _check_fit(reading: Reading, options: ImportOptions) -> None:
    if reading.has_timestamps and options.request_rate is not None:
        raise ConfigError("--request-rate is for sources without arrival times; this one has them")
    if not reading.has_timestamps and options.request_rate is None:
        raise ConfigError(
            f"{reading.files[0]} has no arrival times; make them up with --request-rate R "
            "(gentd26: or import the folder with both files)"
        )
    if reading.lists_controlnets and options.controlnet_share is not None:
        raise ConfigError("--controlnet-share is for sources that list no ControlNets; this one does")
