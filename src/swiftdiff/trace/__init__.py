"""Traces: files of timed requests, read and written as JSONL."""
