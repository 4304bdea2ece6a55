"""Finds everything that is wrong in a trace: it goes on after a bad line, where the reader stops."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails

from swiftdiff.errors import RequestError, TraceError
from swiftdiff.request import ImageRequest, validate_servable
from swiftdiff.scenes.control import CONTROL_KINDS
from swiftdiff.scenes.styles import STYLES
from swiftdiff.trace.files import MAX_LINE_BYTES, Progress, opened, read_chunks
from swiftdiff.trace.findings import Findings, TraceReport
from swiftdiff.trace.provenance import is_provenance, parse_provenance
from swiftdiff.trace.reader import parse_request
from swiftdiff.trace.uniqueness import SeenIds
from swiftdiff.validation import describe

LATE_START_S = 3600.0
_IMAGES_REMEMBERED = 1 << 16
_REPEATS_LOOKED_UP = 5
_INDEX = re.compile(r"\[\d+\]")


def check_trace(path: Path, max_errors: int | None = None, progress: Progress | None = None) -> TraceReport:
    """Return what is wrong in a trace, in memory of eight bytes a request.

    Args:
        path: The file, plain or gzip.
        max_errors: Stop after so many errors; None is never.
        progress: Told how far it is.

    Raises:
        TraceError: The file cannot be opened.
    """
    with opened(path):
        pass  # from here on, what cannot be read is damage in the middle of the file
    check = _Check(path)
    complete = True
    try:
        for number, line in _lines(path, progress):
            check.line(number, line)
            if max_errors is not None and check.findings.num_errors >= max_errors:
                complete = False
                break
    except TraceError as error:
        complete = False
        check.findings.add("error", "the file is damaged", check.num_lines + 1, str(error))
    return check.finish(complete=complete)


class _Check:
    def __init__(self, path: Path) -> None:
        self.findings = Findings()
        self.num_lines = 0
        self._path = path
        self._num_requests = 0
        self._previous_ms: float | None = None
        self._seen = SeenIds()
        self._repeated: dict[str, int] = {}
        self._is_first = True
        self._foreign: dict[str, dict[str, int]] = {"LoRA": {}, "ControlNet": {}}
        self._exists = lru_cache(_IMAGES_REMEMBERED)(lambda image: (path.parent / image).is_file())

    def line(self, number: int, line: bytes | None) -> None:
        """Check a line; None is one that is too long."""
        self.num_lines = number
        if line is None:
            most = f"the line is longer than {MAX_LINE_BYTES} bytes, the most that a request may have"
            self.findings.add("error", "the line is too long", number, most)
        elif line := line.strip():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                self.findings.add("error", "not UTF-8 text", number, f"not UTF-8 text: {bad}")
            else:
                self._text(number, line)
        else:
            return
        self._is_first = False

    def finish(self, *, complete: bool) -> TraceReport:
        """Return the report, after a look at what only the whole file shows."""
        if not self._num_requests and not self.findings.num_errors:
            self.findings.add("error", "no requests", None, "the trace holds no requests")
        self._report_repeated()
        for kind, ids in self._foreign.items():
            if ids:
                most_used = max(ids, key=lambda name: ids[name])
                example = (
                    f"{len(ids)} ids with {sum(ids.values())} uses, {most_used!r} the most used; serve them "
                    "from a store that has them, or map them with replay --adapters"
                )
                self.findings.add("warning", f"{kind} ids that the model shapes lacks", None, example)
        found = self.findings.finish()
        return TraceReport(self._path, self.num_lines, self._num_requests, complete, found)

    def _text(self, number: int, line: bytes) -> None:
        if self._is_first and is_provenance(line):
            try:
                parse_provenance(line, "")
            except TraceError as error:
                self.findings.add("error", "the provenance line is wrong", number, str(error)[2:])
            return
        try:
            request = parse_request(line, "")
        except TraceError as error:
            for kind, example in _problems(error):
                self.findings.add("error", kind, number, example)
            return
        self._num_requests += 1
        self._arrival(number, request.timestamp)
        if not self._seen.add(request.request_id):
            self._repeat(number, request.request_id)
        self._servable(number, request)
        self._adapters(number, request)

    def _arrival(self, number: int, now_ms: float) -> None:
        before_ms, self._previous_ms = self._previous_ms, now_ms
        if before_ms is None:
            if now_ms > LATE_START_S * 1000:
                example = (
                    f"the first request arrives {now_ms / 1000:,.0f} s after the trace's start, and replay "
                    "waits that long; swiftdiff trace slice --start 0 makes it 0"
                )
                self.findings.add("warning", "a late first arrival", number, example)
        elif now_ms < before_ms:
            example = f"timestamp is {now_ms:g}, but must be at least the timestamp before it, {before_ms:g}"
            self.findings.add("error", "timestamp goes backwards", number, example)
        elif before_ms >= 1000 and 500 <= now_ms / before_ms <= 2000:
            example = f"timestamp goes from {before_ms:g} to {now_ms:g}; all must be in milliseconds"
            self.findings.add("warning", "timestamp jumps about 1000-fold", number, example)

    def _repeat(self, number: int, request_id: str) -> None:
        """Count a repeated id at once, or look the first few up later: two ids may only share a hash."""
        if len(self._repeated) < _REPEATS_LOOKED_UP and request_id not in self._repeated:
            self._repeated[request_id] = number
        else:
            self._add_repeated(number, request_id, "")

    def _report_repeated(self) -> None:
        first_lines = _first_lines(self._path, set(self._repeated)) if self._repeated else {}
        for name, number in self._repeated.items():
            if first_lines[name] < number:
                self._add_repeated(number, name, f" (line {first_lines[name]} has it too)")

    def _add_repeated(self, number: int, request_id: str, where: str) -> None:
        example = f"request_id is {request_id!r}, but must be unique in the trace{where}"
        self.findings.add("error", "request_id is repeated", number, example)

    def _servable(self, number: int, request: ImageRequest) -> None:
        try:
            validate_servable(request)
        except RequestError as error:
            example = str(error).removeprefix(f"request {request.request_id}: ")
            field = _INDEX.sub("", example.partition(" is ")[0])
            self.findings.add("error", f"cannot be served: {field}", number, example)

    def _adapters(self, number: int, request: ImageRequest) -> None:
        for lora in request.loras:
            self._count_foreign("LoRA", lora.id, STYLES)
        for use in request.controlnets:
            self._count_foreign("ControlNet", use.id, CONTROL_KINDS)
            if not self._exists(use.image):
                example = f"the control image {self._path.parent / use.image} does not exist"
                self.findings.add("error", "a control image is missing", number, example)

    def _count_foreign(self, kind: str, name: str, known: Container[str]) -> None:
        if name not in known:
            counts = self._foreign[kind]
            counts[name] = counts.get(name, 0) + 1


def _lines(path: Path, progress: Progress | None) -> Iterator[tuple[int, bytes | None]]:
    """Yield (line number from 1, line); None stands for a line that is too long, which is not held."""
    number = 0
    pending, is_long = b"", False
    for chunk in read_chunks(path, progress):
        *ended, pending = (pending + chunk).split(b"\n")
        for line in ended:
            number += 1
            yield number, None if is_long or len(line) >= MAX_LINE_BYTES else line
            is_long = False
        if len(pending) > MAX_LINE_BYTES:
            pending, is_long = b"", True
    if pending or is_long:
        yield number + 1, None if is_long else pending


def _problems(error: TraceError) -> Iterator[tuple[str, str]]:
    """Yield (kind, description) for all that is wrong with a line that `parse_request` refused."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        yield "a field is given more than once", str(error)[2:]
        return
    for problem in cause.errors(include_url=False):
        yield _kind(problem), describe(_alone(problem), ImageRequest)


def _alone(problem: ErrorDetails) -> ValidationError:
    details = InitErrorDetails(type=problem["type"], loc=problem["loc"], input=problem["input"])
    if "ctx" in problem:
        details["ctx"] = problem["ctx"]
    return ValidationError.from_exception_data("ImageRequest", [details])


def _kind(problem: ErrorDetails) -> str:
    field = ".".join(step for step in problem["loc"] if isinstance(step, str))[:60]
    if problem["type"] == "json_invalid":
        return "not valid JSON"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown field {field}"
    allowed = describe(_alone(problem), ImageRequest).rpartition("must be ")[2]
    return f"{field or 'the line'} must be {allowed}"


def _first_lines(path: Path, ids: set[str]) -> dict[str, int]:
    """Return the first line that has each of the ids, which all are in the file."""
    found: dict[str, int] = {}
    for number, line in _lines(path, None):
        try:
            request_id = parse_request((line or b"").strip(), "").request_id
        except (TraceError, UnicodeDecodeError):
            continue
        if request_id in ids and request_id not in found:
            found[request_id] = number
            if len(found) == len(ids):
                break
    return found
