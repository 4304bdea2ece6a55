"""Reads a file with a prompt a line."""

from __future__ import annotations

from pathlib import Path

from swiftdiff.errors import TraceError
from swiftdiff.trace.files import read_lines

MAX_BYTES = 64 << 20


def read_prompts(path: Path) -> list[str]:
    """Return the lines that are not blank; they are held in memory.

    Raises:
        TraceError: The file cannot be read, has no prompts or is larger than 64 MiB.
    """
    prompts: list[str] = []
    size = 0
    for _, line in read_lines(path):
        size += len(line)
        if size > MAX_BYTES:
            raise TraceError(f"{path}: the prompts take more than {MAX_BYTES} bytes, the most that is read")
        if prompt := line.decode().strip():
            prompts.append(prompt)
    if not prompts:
        raise TraceError(f"{path}: no prompts; the file must have one a line")
    return prompts
