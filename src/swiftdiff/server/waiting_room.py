"""Owns the requests that wait: a bounded number, in the order that a policy gives."""

from __future__ import annotations

import threading

from swiftdiff.request import MAX_IMAGES, ImageRequest, LoraUse
from swiftdiff.server.batching import BatchPlanner
from swiftdiff.server.job import Job
from swiftdiff.server.policies import Policy


class WaitingRoom:
    """Where the worker takes its next request from. Used by many threads.

    Args:
        size: Requests that may wait.
        policy: Which is next.
        max_overtakes: For the policy.
    """

    def __init__(self, size: int, policy: Policy, max_overtakes: int) -> None:
        self._size = size
        self._policy = policy
        self._max_overtakes = max_overtakes
        self._waiting: list[Job] = []
        self._last: tuple[LoraUse, ...] = ()
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, job: Job) -> bool:
        """Let a job wait; false if there is no place."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._size:
                return False
            self._waiting.append(job)
            self._changed.notify()
            return True

    def leave(self, job: Job) -> bool:
        """Let a job go whose client did; false if it does not wait here."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def take_now(self) -> Job | None:
        """Return the next job; None if none waits."""
        with self._changed:
            return self._pop() if self._waiting else None

    def take(self) -> Job | None:
        """Return the next job, waiting for one; None once the room is closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._pop() if self._waiting else None

    def take_along(self, job: Job, planner: BatchPlanner) -> list[Job]:
        """Return further jobs to be served in one batch with a job that was taken.

        They come in the policy's order, and count as overtaking those that wait longer.
        """
        with self._changed:
            alike = planner.find_alike(job, self._waiting)
            ordered: list[Job] = []
            while alike and len(ordered) < MAX_IMAGES:
                ordered.append(alike.pop(self._policy(alike, job.request.loras, self._max_overtakes)))
            taken = ordered[: planner.choose(job, ordered)]
            for each in taken:
                self._remove(self._waiting.index(each))
            return taken

    def upcoming(self, limit: int) -> list[ImageRequest]:
        """Return the next requests of the server's own system, as far as is known now, at most ``limit``."""
        with self._changed:
            waiting, last = list(self._waiting), self._last
            following: list[ImageRequest] = []
            while waiting and len(following) < limit:
                job = waiting.pop(self._policy(waiting, last, self._max_overtakes))
                if job.engine is not None:  # another system's turn comes first: nothing to prepare here
                    break
                last = job.request.loras
                following.append(job.request)
            return following

    def close(self) -> None:
        """Take no more jobs; those that wait are still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop(self) -> Job:
        index = self._policy(self._waiting, self._last, self._max_overtakes)
        job = self._remove(index)
        self._last = job.request.loras
        return job

    def _remove(self, index: int) -> Job:
        for overtaken in self._waiting[:index]:
            overtaken.overtaken += 1
        return self._waiting.pop(index)
