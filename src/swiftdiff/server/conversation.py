"""Owns one client's wait for its job: events in, and the job given up when the client or its time is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from swiftdiff.engine.clock import Clock
from swiftdiff.errors import StorageError
from swiftdiff.server.delivery import Delivery
from swiftdiff.server.errors import HttpError, deadline_passed
from swiftdiff.server.job import Event, Failed, Job
from swiftdiff.server.waiting_room import WaitingRoom

CLIENT_LEFT = HttpError(499, "the client went away", "client_left")


class Mailbox:
    """Events of one job, put in by any thread and read by the event loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        """Add an event; what comes after the loop has ended is lost with its client."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def get(self) -> Event:
        """Return the oldest event; waits for it."""
        return await self._events.get()


@dataclass
class Conversation:
    """One client and its job.

    Attributes:
        http: The client's request, whose body has been read.
        job: The job.
        mailbox: Its events.
        room: Where it waits.
        delivery: Records how it ends.
        clock: The time.
        ended: Called when it is over.
    """

    http: Request
    job: Job
    mailbox: Mailbox
    room: WaitingRoom
    delivery: Delivery
    clock: Clock
    ended: Callable[[Job], None]

    async def next_event(self) -> Event | None:
        """Return what happens next to the job; None if the client has gone: nothing more comes then."""
        news = asyncio.ensure_future(self.mailbox.get())
        gone = asyncio.ensure_future(self._disconnected())
        left_s = max(0.0, self.job.deadline_s - self.clock.now())
        try:
            await asyncio.wait({news, gone}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if news.done():
                return news.result()
            if gone.done():
                await self.give_up(CLIENT_LEFT)
                return None
            allowed_ms = (self.job.deadline_s - self.job.arrived_s) * 1000
            if await self.give_up(deadline := deadline_passed(allowed_ms)) == "ours":
                return Failed(deadline)
            return await news  # it ended in this very moment
        finally:
            news.cancel()
            gone.cancel()

    async def give_up(self, error: HttpError) -> Literal["ours", "over"]:
        """End the job, wherever it is, and write down why, unless it has ended; free its place."""
        recorded = self.delivery.end_unserved(self.job, error)
        if self.room.leave(self.job):
            self.job.discard_files()
        if recorded is None:
            return "over"
        with suppress(StorageError):
            await asyncio.shield(asyncio.wrap_future(recorded))
        return "ours"

    def close(self) -> None:
        """See that the job is over, whatever happened to the conversation."""
        self.delivery.end_unserved(self.job, CLIENT_LEFT)
        if self.room.leave(self.job):
            self.job.discard_files()
        self.ended(self.job)

    async def _disconnected(self) -> None:
        while (await self.http.receive())["type"] != "http.disconnect":
            pass
