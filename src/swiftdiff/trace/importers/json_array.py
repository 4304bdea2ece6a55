"""Reads the elements of one huge JSON array one after the other, holding one of them in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import MAX_LINE_BYTES, Progress, read_chunks

_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_GOES_ON = ("", *".eE+-0123456789")


def read_array(path: Path, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (place for errors, element) for each element of the JSON array that a file holds, plain or gzip.

    Raises:
        TraceError: The file cannot be read, is no JSON array, or has an element longer than a request may be.
    """
    text = _Text(path, progress)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    if text.next_char() != "[":
        raise TraceError(f"{path}: not a JSON array: it must begin with '['")
    text.skip()
    number = 0
    if text.next_char() == "]":
        text.skip()
    else:
        while True:
            number += 1
            where = f"{path}, element {number}"
            yield where, text.element(decoder, where)
            mark = text.next_char()
            if mark not in (",", "]"):
                found = repr(mark) if mark else "the end of the file"
                raise TraceError(f"{where}: ',' or ']' must follow, but there is {found}")
            text.skip()
            if mark == "]":
                break
    if mark := text.next_char():
        raise TraceError(f"{path}: there is {mark!r} after the end of the array; a trace is one array")


class _Text:
    """The file's text, of which a window that begins at the next unread character is in memory."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._path = path
        self._chunks = read_chunks(path, progress)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._window = ""
        self._at = 0
        self._ended = False

    def next_char(self) -> str:
        """Move to the next character that is not white space and return it; empty at the end."""
        while True:
            found = _NOT_SPACE.search(self._window, self._at)
            self._at = found.start() if found else len(self._window)
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._read_on()

    def skip(self) -> None:
        """Move on by one character."""
        self._at += 1

    def element(self, decoder: json.JSONDecoder, where: str) -> Any:
        """Decode the element here and move behind it."""
        self.next_char()
        while True:
            complaint = "the element is cut off"
            try:
                value, end = decoder.raw_decode(self._window, self._at)
                # A number may go on in the next chunk: the window may end with its "0" or "0.".
                if self._ended or self._window[end : end + 1] not in _GOES_ON:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                complaint = f"{error.msg} at character {error.pos - self._at + 1} of the element"
            except RecursionError:
                complaint = "nested too deeply"
            except ValueError as error:  # an integer of thousands of digits, NaN
                complaint = str(error)
            if self._ended:
                raise TraceError(f"{where}: not valid JSON: {complaint}")
            if len(self._window) - self._at > MAX_LINE_BYTES:
                limit = f"its first {MAX_LINE_BYTES} characters, the most that a request may have"
                raise TraceError(f"{where}: not valid JSON in {limit}: {complaint}")
            self._read_on()

    def _read_on(self) -> None:
        chunk = next(self._chunks, b"")
        self._ended = not chunk
        try:
            more = self._decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            bad = f"byte 0x{error.object[error.start]:02x}"
            raise TraceError(f"{self._path}: not UTF-8 text: {bad}; save the trace as UTF-8") from error
        self._window = self._window[self._at :] + more
        self._at = 0


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")
