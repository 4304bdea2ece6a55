"""Reads single values of foreign traces, from JSON or from text, strictly: number, whole number, adapters."""

from __future__ import annotations

import ast
import json
import math
from functools import lru_cache
from typing import Any

from swiftdiff.errors import TraceError

from .source import Adapter

MAX_ADAPTERS = 64
MAX_ID_LENGTH = 256
_MAX_LIST_LENGTH = 1 << 14
_SHAPE = "a list of adapter ids, or of objects with an id and a scale"


def number(value: object, field: str, where: str) -> float | None:
    """Return a finite number; None for what is missing or blank.

    Raises:
        TraceError: It is no number.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            result = float(value)
            if math.isfinite(result):
                return result
    except (ValueError, OverflowError):
        pass
    raise TraceError.for_field(field, value, "a number", where)


def whole(value: object, field: str, where: str) -> int | None:
    """Return a whole number, also one written ``30.0``; None for what is missing or blank.

    Raises:
        TraceError: It is no whole number.
    """
    result = number(value, field, where)
    if result is None:
        return None
    if not result.is_integer():
        raise TraceError.for_field(field, value, "a whole number", where)
    return int(result)


def text(value: object, field: str, where: str) -> str | None:
    """Return a text, or a whole number as text; None for what is missing or blank.

    Raises:
        TraceError: It is something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise TraceError.for_field(field, value, "a text", where)


def adapters(value: object, field: str, where: str) -> tuple[Adapter, ...]:
    """Return the adapters of a list; missing, null and empty lists have none, and null entries are skipped.

    An entry is an id, or an object with an id (``id`` or GenTD26's ``modelVersionId``) and perhaps a scale.

    Raises:
        TraceError: It is no such list, or longer than any request's.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TraceError.for_field(field, value, _SHAPE, where)
    if len(value) > MAX_ADAPTERS:
        raise TraceError.for_field(field, value, f"a list of at most {MAX_ADAPTERS} adapters", where)
    return tuple(
        _adapter(entry, f"{field}[{index}]", where) for index, entry in enumerate(value) if entry is not None
    )


def adapters_from_text(cell: str, field: str, where: str) -> tuple[Adapter, ...]:
    """Return the adapters in a cell: a list in JSON or Python, or ids with ``;`` between them.

    Raises:
        TraceError: It is neither.
    """
    stripped = cell.strip()
    if stripped.startswith("["):
        return adapters_from_list(stripped, field, where)
    return adapters([part.strip() for part in stripped.split(";") if part.strip()], field, where)


def adapters_from_list(cell: str, field: str, where: str) -> tuple[Adapter, ...]:
    """Return the adapters in a list that is written in JSON or Python.

    Raises:
        TraceError: It is no such list.
    """
    try:
        return _parsed_list(cell, field)
    except TraceError as error:
        raise TraceError(f"{where}: {error}") from error


@lru_cache(maxsize=4096)
def _parsed_list(literal: str, field: str) -> tuple[Adapter, ...]:
    if len(literal) > _MAX_LIST_LENGTH:
        raise TraceError(f"{field} has {len(literal)} characters, but must have at most {_MAX_LIST_LENGTH}")
    for parse in (json.loads, ast.literal_eval):  # neither evaluates code
        try:
            value = parse(literal)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return adapters(value, field, "")
    raise TraceError.for_field(field, literal, _SHAPE)


def _adapter(entry: Any, field: str, where: str) -> Adapter:
    scale = None
    if isinstance(entry, dict):
        names = set(entry)
        id_field = "modelVersionId" if "modelVersionId" in names else "id"
        if id_field not in names or names - {id_field, "scale"}:
            raise TraceError.for_field(field, entry, "an object with an id and perhaps a scale", where)
        scale = number(entry.get("scale"), f"{field}.scale", where)
        entry = entry[id_field]
    identity = text(entry, field, where)
    if identity is None or len(identity) > MAX_ID_LENGTH:
        raise TraceError.for_field(field, entry, f"an id of 1 to {MAX_ID_LENGTH} characters", where)
    return identity, scale
