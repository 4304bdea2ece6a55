"""Owns a trace's first line, which says where the trace comes from; the reader takes it for no request."""

from __future__ import annotations

import json
import re

from pydantic import Field, JsonValue, ValidationError

from swiftdiff.errors import TraceError
from swiftdiff.validation import StrictModel, describe

_BEGIN = re.compile(rb'\s*\{\s*"provenance"\s*:')


class Source(StrictModel):
    """A file that a trace was made from.

    Attributes:
        name: Its name without folders, so that the same input gives the same line on every machine.
        sha256: Hex digest of its bytes as they lie on disk.
    """

    name: str
    sha256: str


class Provenance(StrictModel):
    """How a trace came about. It holds no moment in time: the same input, options and seed give it again.

    Attributes:
        command: What made it, such as ``trace import gentd26``.
        swiftdiff: The version that made it.
        sources: The files it was made from.
        options: The options that shaped it.
        seed: Of what was drawn at random; None if nothing was.
        filled_in: What the sources lack and how it was made up, by field.
        dropped: How many of the sources' requests are left out, by reason.
        parent: Where the trace that this one was made from comes from.
    """

    command: str
    swiftdiff: str
    sources: tuple[Source, ...] = ()
    options: dict[str, JsonValue] = Field(default_factory=dict)
    seed: int | None = None
    filled_in: dict[str, str] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    parent: Provenance | None = None


class _Line(StrictModel):
    provenance: Provenance


def is_provenance(line: bytes) -> bool:
    """Whether a line of a trace begins as a provenance line does."""
    return _BEGIN.match(line) is not None


def parse_provenance(line: bytes, where: str) -> Provenance:
    """Validate a provenance line; ``where`` names it in errors, as ``file:line``.

    Raises:
        TraceError: It is wrong.
    """
    try:
        return _Line.model_validate_json(line).provenance
    except ValidationError as error:
        raise TraceError(f"{where}: {describe(error, _Line)}") from error


def format_provenance(provenance: Provenance) -> str:
    """Return the provenance as a trace's first line, without line end; what is None or empty is left out."""
    return json.dumps({"provenance": _compact(provenance)}, ensure_ascii=False)


def _compact(provenance: Provenance) -> dict[str, object]:
    fields = provenance.model_dump(mode="json", exclude={"parent"})
    kept = {name: value for name, value in fields.items() if value not in (None, [], {})}
    return kept | ({"parent": _compact(provenance.parent)} if provenance.parent else {})
