"""Decides whether another session may start: its cache must fit what is left of the memory budget."""

from __future__ import annotations

import threading

from swiftdiff.errors import ConfigError, RequestError

MEGABYTE = 1_000_000


class BudgetError(RequestError):
    """A session cannot start now; those that run go on."""


class Admission:
    """Counts sessions and the bytes that their caches take. All sessions of an engine take the same.

    Args:
        session_bytes: What one session's caches take.
        max_sessions: Sessions side by side.
        budget_bytes: For all caches; None is no limit.

    Raises:
        ConfigError: The budget fits no session.
    """

    def __init__(self, session_bytes: int, max_sessions: int, budget_bytes: int | None) -> None:
        if budget_bytes is not None and session_bytes > budget_bytes:
            raise ConfigError(
                f"memory_budget_mb is {_megabytes(budget_bytes)}, but one session's cache takes "
                f"{_megabytes(session_bytes)} MB: raise it, or take a shorter window or dtype int8"
            )
        self.session_bytes = session_bytes
        self._max_sessions = max_sessions
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._num_sessions = 0

    @property
    def capacity(self) -> int:
        """Sessions that fit side by side."""
        if self._budget_bytes is None or self.session_bytes == 0:
            return self._max_sessions
        return min(self._max_sessions, self._budget_bytes // self.session_bytes)

    @property
    def num_sessions(self) -> int:
        """Sessions that run now."""
        with self._lock:
            return self._num_sessions

    @property
    def used_bytes(self) -> int:
        """What the caches of the sessions that run now take."""
        return self.num_sessions * self.session_bytes

    def admit(self) -> None:
        """Let one more session start; `release` is owed for it.

        Raises:
            BudgetError: There are as many as may be, or its cache does not fit.
        """
        with self._lock:
            if self._num_sessions >= self._max_sessions:
                raise BudgetError(
                    f"{self._num_sessions} sessions run, and max_sessions is {self._max_sessions}: "
                    "close one, or try again later"
                )
            if self._num_sessions >= self.capacity:
                raise BudgetError(
                    f"another session's cache takes {_megabytes(self.session_bytes)} MB, and "
                    f"{self._num_sessions} sessions leave less of memory_budget_mb than that: "
                    "close one, or try again later"
                )
            self._num_sessions += 1

    def release(self) -> None:
        """Give back what one session took."""
        with self._lock:
            self._num_sessions -= 1


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / MEGABYTE:.3g}"
