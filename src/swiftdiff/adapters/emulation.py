"""Decides how long fetches from an emulated remote store take: by numbers with jitter, or as was measured."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from swiftdiff.config import StoreEmulationConfig
from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe

AdapterKind = Literal["controlnet", "lora"]
KINDS: tuple[AdapterKind, ...] = ("controlnet", "lora")
_FILE_KINDS = (".csv", ".jsonl", ".json")


class Measurement(StrictModel):
    """One measured load.

    Attributes:
        load_s: Seconds from asking for the adapter until its files lay on the local disk.
        kind: ``lora`` or ``controlnet``; None stands for both.
    """

    load_s: Annotated[float, Field(ge=0, le=86400)]
    kind: AdapterKind | None = None


@dataclass(frozen=True)
class MeasuredTimes:
    """Times of one file, in its order.

    Attributes:
        file_name: The file's name.
        seconds: Times of each kind of adapter, at least one; those that stand for both kinds are in both.
    """

    file_name: str
    seconds: dict[AdapterKind, tuple[float, ...]]


class FetchTimes:
    """The emulated time of each fetch. Safe on several threads.

    An adapter's n-th fetch takes a time that only the seed, its kind, its id and n decide: whichever thread
    asks, whatever else is fetched, and in every process.

    Args:
        config: What to emulate.

    Raises:
        ConfigError: Its file of measured times cannot be used.
    """

    def __init__(self, config: StoreEmulationConfig) -> None:
        self._config = config
        file = config.latency_file
        self._measured = read_measurements(Path(file)) if file is not None else None
        # Of the normal distribution below the lognormal one.
        self._sigma = math.sqrt(math.log1p(config.jitter**2))
        self._fetches: Counter[tuple[AdapterKind, str]] = Counter()
        self._lock = threading.Lock()

    def draw(self, kind: AdapterKind, adapter_id: str, num_bytes: int) -> float:
        """Return the seconds that an adapter's next fetch takes, and count it.

        Args:
            kind: What is fetched.
            adapter_id: Which.
            num_bytes: Size of its files; measured times do not depend on it.
        """
        with self._lock:
            count = self._fetches[kind, adapter_id]
            self._fetches[kind, adapter_id] += 1
        # A string seeds alike in every process; a tuple would go by its hash, which does not.
        generator = random.Random(f"{self._config.seed}/{kind}/{adapter_id}/{count}")
        if self._measured is not None:
            return generator.choice(self._measured.seconds[kind])
        seconds = self._config.latency_ms / 1000
        if self._config.bandwidth_mb_s is not None:
            seconds += num_bytes / (self._config.bandwidth_mb_s * 1e6)
        return seconds * generator.lognormvariate(-(self._sigma**2) / 2, self._sigma)


def describe_emulation(config: StoreEmulationConfig) -> str | None:
    """Return what tables say of a run with this store, None if nothing is emulated.

    Raises:
        ConfigError: The file of measured times cannot be used.
    """
    if config.latency_file is not None:
        measured = read_measurements(Path(config.latency_file))
        parts = [f"fetches as measured in {measured.file_name}"]
        for kind, times in measured.seconds.items():
            parts.append(f"{kind} median {statistics.median(times):.3g} s of {len(times)}")
        return ", ".join([*parts, f"seed {config.seed}"])
    parts = []
    if config.latency_ms:
        parts.append(f"{config.latency_ms:g} ms latency")
    if config.bandwidth_mb_s is not None:
        parts.append(f"{config.bandwidth_mb_s:g} MB/s")
    if config.jitter:
        parts.append(f"jitter {config.jitter:g} (lognormal, seed {config.seed})")
    return ", ".join(parts) or None


def read_measurements(path: Path) -> MeasuredTimes:
    """Read measured load times.

    A CSV file has a header with ``load_s`` (seconds) and, if wanted, ``kind`` (``lora``, ``controlnet`` or
    empty for both). A JSONL file has a number or an object with these fields in each line, a JSON file a list
    of them.

    Raises:
        ConfigError: The file cannot be read, is of no such form, has a wrong value, or has no time for one of
            the kinds. The message names file and line.
    """
    where = f"adapters.emulate.latency_file {path}"
    if path.suffix.lower() not in _FILE_KINDS:
        raise ConfigError(f"{where}: its name must end in {', '.join(_FILE_KINDS[:-1])} or {_FILE_KINDS[-1]}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} cannot be read: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    measurements = [_measurement(value, f"{where}, {place}") for place, value in _values(path, text, where)]
    if not measurements:
        raise ConfigError(f"{where} is empty: it must hold at least one load_s")
    seconds = {kind: tuple(m.load_s for m in measurements if m.kind in (None, kind)) for kind in KINDS}
    for kind, times in seconds.items():
        if not times:
            raise ConfigError(
                f"{where} has no load of a {kind}: at least one must have the kind {kind!r} (load_s 0 is a "
                "fetch that takes no time) or none"
            )
    return MeasuredTimes(path.name, seconds)


def _values(path: Path, text: str, where: str) -> Iterator[tuple[str, object]]:
    """Yield each place in the file and what stands there."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _csv_values(text, where)
    elif suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _parse_json(line, f"{where}, line {number}")
    else:
        values = _parse_json(text, where) if text.strip() else []
        if not isinstance(values, list):
            raise ConfigError(f"{where} must hold a list of numbers or objects")
        for index, value in enumerate(values):
            yield f"item {index}", value


def _csv_values(text: str, where: str) -> Iterator[tuple[str, object]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="more")
    try:
        for row in reader:
            yield f"line {reader.line_num}", _typed(row)
    except csv.Error as error:
        raise ConfigError(f"{where}, line {reader.line_num}: not valid CSV: {error}") from error


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of CSV with numbers where they are meant; what is left a string is refused later."""
    values = {key.strip(): value for key, value in row.items()}
    if not values.get("kind"):
        values.pop("kind", None)
    else:
        values["kind"] = values["kind"].strip()
    with contextlib.suppress(KeyError, TypeError, ValueError):
        values["load_s"] = float(values["load_s"])
    return values


def _parse_json(text: str, where: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error
    return value


def _measurement(value: object, where: str) -> Measurement:
    try:
        return Measurement.model_validate(value if isinstance(value, dict) else {"load_s": value})
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, Measurement)}") from error
