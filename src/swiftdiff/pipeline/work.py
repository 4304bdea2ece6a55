"""Owns what a request has under way on lanes, so that nothing of it runs on when the request has ended."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from swiftdiff.pipeline.lane import Lane, LaneFuture

Result = TypeVar("Result")


class Work:
    """Submits to lanes for one request; leaving its block cancels what has not begun and awaits the rest.

    Without the wait, weights could be restored on one thread while a lane still reads them.
    """

    def __init__(self) -> None:
        self._under_way: list[LaneFuture[Any]] = []

    def submit(self, lane: Lane, fn: Callable[..., Result], *arguments: Any) -> LaneFuture[Result]:
        """Queue work as `Lane.submit` does."""
        future = lane.submit(fn, *arguments)
        self._under_way.append(future)
        return future

    def settle(self) -> None:
        """Forget what was submitted so far; to be called when all of it is known to be done."""
        self._under_way.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._under_way:
            future.cancel()
        for future in self._under_way:
            future.wait()
        self._under_way.clear()
