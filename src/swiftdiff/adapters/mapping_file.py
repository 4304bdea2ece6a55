"""Reads how a trace's adapter ids are to be mapped: a rule's name, or a file of pairs."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from swiftdiff.adapters.measured_times import AdapterKind
from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe

Rule = Literal["alias", "popularity", "hash"]
RULES: tuple[Rule, ...] = ("alias", "popularity", "hash")
_COLUMNS = ("kind", "id", "store_id")


@dataclass(frozen=True)
class MappingRule:
    """How ids are mapped.

    Attributes:
        how: ``alias`` gives each id that the store lacks a file of its own; ``popularity`` deals the store's
            adapters out to the ids by rank; ``hash`` by SHA-256; ``file`` as a file says.
        file_name: The file's name, or None.
        targets: The file's pairs by kind: the trace's id, the store's.
    """

    how: Rule | Literal["file"]
    file_name: str | None = None
    targets: Mapping[AdapterKind, Mapping[str, str]] = field(default_factory=dict)


class _Pairs(StrictModel):
    loras: dict[str, str] = Field(default_factory=dict)
    controlnets: dict[str, str] = Field(default_factory=dict)


class _Row(StrictModel):
    kind: AdapterKind
    id: str
    store_id: str


def read_rule(text: str) -> MappingRule:
    """Return what ``--adapters`` asks for.

    A JSON file holds ``{"loras": {"<id in the trace>": "<id in the store>"}, "controlnets": {...}}``; a CSV
    file has the columns ``kind`` (``lora`` or ``controlnet``), ``id`` and ``store_id``.

    Args:
        text: ``alias``, ``popularity``, ``hash``, or a file's path that ends in ``.json`` or ``.csv``.

    Raises:
        ConfigError: It is none of these, or the file cannot be read or is wrong; the message names the line.
    """
    for how in RULES:
        if text == how:
            return MappingRule(how)
    path = Path(text).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        allowed = f"{', '.join(RULES)}, or a mapping file that ends in .json or .csv"
        raise ConfigError.for_field("--adapters", text, allowed)
    where = f"--adapters {path}"
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} cannot be read: it is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    targets = _from_json(content, where) if suffix == ".json" else _from_csv(content, where)
    if not any(targets.values()):
        raise ConfigError(f"{where} maps nothing: it must hold at least one id")
    return MappingRule("file", path.name, targets)


def _from_json(text: str, where: str) -> dict[AdapterKind, dict[str, str]]:
    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise ConfigError(f"{where}: {name!r} is given more than once, but must be given once")
        return dict(pairs)

    try:
        pairs = _Pairs.model_validate(json.loads(text, object_pairs_hook=refuse_repeated))
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, _Pairs)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error
    return {"controlnet": pairs.controlnets, "lora": pairs.loras}


def _from_csv(text: str, where: str) -> dict[AdapterKind, dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="more")
    targets: dict[AdapterKind, dict[str, str]] = {"controlnet": {}, "lora": {}}
    try:
        if sorted(reader.fieldnames or ()) != sorted(_COLUMNS):
            raise ConfigError.for_field("header", reader.fieldnames, ",".join(_COLUMNS), f"{where}, line 1")
        for values in reader:
            place = f"{where}, line {reader.line_num}"
            try:
                row = _Row.model_validate(values)
            except ValidationError as error:
                raise ConfigError(f"{place}: {describe(error, _Row)}") from error
            if row.id in targets[row.kind]:
                raise ConfigError(f"{place}: {row.id!r} is given more than once, but must be given once")
            targets[row.kind][row.id] = row.store_id
    except csv.Error as error:
        raise ConfigError(f"{where}, line {reader.line_num}: not valid CSV: {error}") from error
    return targets
