"""Traces: files of timed requests, read and written as JSONL."""

from __future__ import annotations

from swiftdiff.trace.reader import TraceInfo, parse_request, read_trace, scan_trace, trace_sha256
from swiftdiff.trace.writer import format_request, write_trace

__all__ = [
    "TraceInfo",
    "format_request",
    "parse_request",
    "read_trace",
    "scan_trace",
    "trace_sha256",
    "write_trace",
]
