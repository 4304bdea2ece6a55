"""Sorts a source's requests by arrival in bounded memory: sorted runs on disk, merged at the end."""

from __future__ import annotations

import heapq
import itertools
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from swiftdiff.errors import StorageError, TraceError

from .source import SourceRequest

Timed = tuple[float, int, SourceRequest]
"""Arrival in milliseconds, position in the source (which no two share), request."""

RUN_LENGTH = 20_000
MAX_RUNS = 500


def sort_by_arrival(requests: Iterable[Timed], folder: Path) -> Iterator[Timed]:
    """Yield requests in order of arrival, those of equal arrival in the source's order.

    Args:
        requests: In any order.
        folder: Where unnamed temporary files may lie.

    Raises:
        StorageError: The folder cannot be written.
        TraceError: There are more than ten million requests.
    """
    requests = iter(requests)
    with ExitStack() as files:
        runs: list[Iterable[Timed]] = []
        while run := sorted(itertools.islice(requests, RUN_LENGTH)):
            if len(run) < RUN_LENGTH:
                runs.append(run)
                break
            if len(runs) == MAX_RUNS:
                most = RUN_LENGTH * MAX_RUNS
                raise TraceError(f"--sort sorts at most {most} requests; sort the file beforehand")
            try:
                file = files.enter_context(tempfile.TemporaryFile(dir=folder))
                for timed in run:
                    pickle.dump(timed, file, pickle.HIGHEST_PROTOCOL)
                file.seek(0)
            except OSError as error:
                reason = error.strerror or error
                raise StorageError(f"cannot write what is being sorted to {folder}: {reason}") from error
            runs.append(_stored(file, len(run)))
        yield from heapq.merge(*runs)


def _stored(file: IO[bytes], count: int) -> Iterator[Timed]:
    for _ in range(count):
        yield pickle.load(file)  # our own file, which has no name
