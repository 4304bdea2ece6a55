"""Reads files of measured load times: CSV, JSONL or JSON, gzipped or not, GenTD26's as they are published."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe

AdapterKind = Literal["controlnet", "lora"]
KINDS: tuple[AdapterKind, ...] = ("controlnet", "lora")
_FILE_KINDS = (".csv", ".jsonl", ".json")
_GZIP_MAGIC = b"\x1f\x8b"
# The columns of GenTD26's latency files (Alibaba cluster trace 2026); its values are milliseconds.
_GENTD26 = {"timestamp_anon", "value", "container_ip"}


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
        seconds: Times of each kind that was asked for, at least one; what stands for both kinds is in both.
    """

    file_name: str
    seconds: dict[AdapterKind, tuple[float, ...]]


def read_measurements(
    path: Path, field: str = "latency_file", kinds: Sequence[AdapterKind] = KINDS
) -> MeasuredTimes:
    """Read measured load times.

    A CSV file has a header with ``load_s`` (seconds) and, if wanted, ``kind`` (``lora``, ``controlnet`` or
    empty for both). A JSONL file has a number or an object with these fields in each line, a JSON file a list
    of them. GenTD26's latency files are CSV with ``timestamp_anon``, ``value`` (milliseconds) and
    ``container_ip``. Each may be gzipped, with ``.gz`` after its name.

    Args:
        path: The file.
        field: Key of ``[adapters.emulate]`` that names it, for errors.
        kinds: Kinds of adapter whose times are wanted.

    Raises:
        ConfigError: The file cannot be read, is of no such form, has a wrong value, or has no time for one of
            the kinds. The message names file and line.
    """
    where = f"adapters.emulate.{field} {path}"
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _FILE_KINDS:
        raise ConfigError(
            f"{where}: its name must end in {', '.join(_FILE_KINDS[:-1])} or {_FILE_KINDS[-1]}, "
            "or in one of these and .gz"
        )
    text = _read_text(path, where)
    measurements = [_measurement(value, f"{where}, {place}") for place, value in _values(suffix, text, where)]
    if not measurements:
        raise ConfigError(f"{where} is empty: it must hold at least one load_s")
    seconds = {kind: tuple(m.load_s for m in measurements if m.kind in (None, kind)) for kind in kinds}
    for kind, times in seconds.items():
        if not times:
            raise ConfigError(
                f"{where} has no load of a {kind}: at least one must have the kind {kind!r} (load_s 0 is a "
                "fetch that takes no time) or none"
            )
    return MeasuredTimes(path.name, seconds)


def _read_text(path: Path, where: str) -> str:
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP_MAGIC):
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(
            f"{where} cannot be read: its gzip data is damaged or cut off ({error}); copy the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} cannot be read: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _values(suffix: str, text: str, where: str) -> Iterator[tuple[str, object]]:
    """Yield each place in the file and what stands there."""
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
        is_gentd26 = set(reader.fieldnames or ()) == _GENTD26
        for row in reader:
            yield f"line {reader.line_num}", _from_gentd26(row) if is_gentd26 else _typed(row)
    except csv.Error as error:
        raise ConfigError(f"{where}, line {reader.line_num}: not valid CSV: {error}") from error


def _from_gentd26(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of GenTD26 under our names; a value that is no number is refused later."""
    value: Any = row["value"]
    with contextlib.suppress(TypeError, ValueError):
        value = float(value) / 1000
    return {"load_s": value}


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
