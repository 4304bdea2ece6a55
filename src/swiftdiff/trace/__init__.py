"""Traces: files of timed requests, read and written as JSONL."""

from __future__ import annotations

from swiftdiff.trace.provenance import Provenance, Source
from swiftdiff.trace.reader import (
    TraceInfo,
    parse_request,
    read_provenance,
    read_trace,
    scan_trace,
    source_of,
    trace_sha256,
)
from swiftdiff.trace.writer import format_request, write_trace

__all__ = [
    "Provenance",
    "Source",
    "TraceInfo",
    "format_request",
    "parse_request",
    "read_provenance",
    "read_trace",
    "scan_trace",
    "source_of",
    "trace_sha256",
    "write_trace",
]
