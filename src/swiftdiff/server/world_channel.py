"""Owns one world that runs: a thread makes blocks, the event loop shows them in time to whoever watches."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from swiftdiff.errors import RequestError, SwiftdiffError
from swiftdiff.server.errors import HttpError
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_metrics import WorldMetrics
from swiftdiff.server.world_viewer import Picture, Viewer, encode_frame

if TYPE_CHECKING:
    from swiftdiff.world.session import WorldSession

LOGGER = logging.getLogger("swiftdiff.server")
CLOSED = HttpError(410, "this world was ended", "world_ended")
UNWATCHED = HttpError(410, "nobody watched this world any more", "world_ended")


class Pace:
    """When each frame is due. A frame that comes late moves all that follow: nothing is hurried.

    Args:
        fps: Frames a second.
    """

    def __init__(self, fps: float) -> None:
        self._interval_s = 1.0 / fps
        self._due_s = float("-inf")

    def wait_s(self, now_s: float) -> float:
        """Return how long the next frame has to wait, and count it as shown then."""
        due_s = max(self._due_s, now_s)
        self._due_s = due_s + self._interval_s
        return due_s - now_s


class World:
    """One session and its viewers. For the event loop; only blocks are made on a thread of its own.

    While one block is shown the next one is made, and none further: what is asked of a world is seen soon,
    and a world that nobody watches stands still. Slow viewers lose frames and hold up nobody.

    Args:
        world_id: Its name, which cannot be guessed.
        session: Makes blocks; closed with the world.
        fps: Frames a second at most.
        config: How it is shown.
        metrics: Count it.
        on_end: Called once its session is closed.

    Attributes:
        seed: Of its session.
        ended: Set once its session is closed.
        num_frames: Shown so far.
        num_blocks: Made so far.
        missed: Frames that viewers lost, all together.
    """

    def __init__(
        self,
        world_id: str,
        session: WorldSession,
        *,
        fps: float,
        config: StreamConfig,
        metrics: WorldMetrics,
        on_end: Callable[[World], None],
    ) -> None:
        self.id = world_id
        self.seed = session.seed
        self.ended = asyncio.Event()
        self.num_frames = self.num_blocks = self.missed = 0
        self._num_begun = 0
        self._is_made = False  # no more blocks come
        self._reason: HttpError | None = None
        self._session = session
        self._fps = fps
        self._config = config
        self._metrics = metrics
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[tuple[Picture, ...] | HttpError] = asyncio.Queue()
        self._viewers: set[Viewer] = set()
        self._is_watched = asyncio.Event()
        self._wanted = threading.Semaphore(1)
        self._is_over = threading.Event()
        self._idle = self._loop.call_later(config.idle_s, self.close, UNWATCHED)
        self._player = self._loop.create_task(self._play())
        self._thread = threading.Thread(target=self._make, name=f"world-{world_id}", daemon=True)
        self._thread.start()

    @property
    def num_viewers(self) -> int:
        """Clients that watch now."""
        return len(self._viewers)

    def watch(self) -> Viewer:
        """Return a place to watch from; `leave` is owed for it."""
        viewer = Viewer(self._config.queue_frames, self._config.max_missed, self._count_missed)
        self._viewers.add(viewer)
        self._idle.cancel()
        self._is_watched.set()
        if self._reason is not None:
            viewer.end(self._reason)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Give a place back."""
        self._viewers.discard(viewer)
        if not self._viewers and not self._is_over.is_set():
            self._is_watched.clear()
            self._idle.cancel()
            self._idle = self._loop.call_later(self._config.idle_s, self.close, UNWATCHED)

    async def steer(self, text: str, blocks: int | None) -> int:
        """Ask for something, from the next block that is begun on.

        Returns:
            The block that shows it at the latest.

        Raises:
            SwiftdiffError: It means nothing to the model; the world goes on.
        """
        # Encoding the text may take a while.
        await asyncio.to_thread(self._session.steer, text, blocks)
        self._metrics.steered()
        return self._num_begun

    def close(self, reason: HttpError = CLOSED) -> None:
        """Begin to end it; `ended` is set when its place is free."""
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._reason = reason
        self._wanted.release()
        self._idle.cancel()
        self._player.cancel()
        self._loop.run_in_executor(None, self._session.close)  # waits for a step
        for viewer in self._viewers:
            viewer.end(reason)
        self._end_if_done()

    def join(self, timeout_s: float) -> bool:
        """Make no more blocks and wait for the thread that does; tell whether it ended. From any thread."""
        self._is_over.set()
        self._wanted.release()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    async def _play(self) -> None:
        pace = Pace(self._fps)
        while not isinstance(block := await self._blocks.get(), HttpError):
            self._wanted.release()
            for picture in block:
                await asyncio.sleep(pace.wait_s(self._loop.time()))
                await self._is_watched.wait()
                self._show(picture)
        self._loop.call_soon(self.close, block)

    def _show(self, picture: Picture) -> None:
        self.num_frames += 1
        self._metrics.shown(len(self._viewers))
        for viewer in self._viewers:
            viewer.offer(picture)

    def _count_missed(self) -> None:
        self.missed += 1
        self._metrics.missed()

    def _make(self) -> None:
        """Make a block whenever one is wanted; on the world's thread."""
        num_frames = 0
        try:
            while self._wanted.acquire() and not self._is_over.is_set():
                self._num_begun += 1
                began_s = time.perf_counter()
                block = self._session.next_block()
                self._metrics.made(time.perf_counter() - began_s)
                pictures = tuple(
                    Picture(num_frames + at, block.index, block.prompt, *encode_frame(frame))
                    for at, frame in enumerate(block.frames)
                )
                num_frames += len(pictures)
                self._tell(self._add, pictures)
        except Exception as error:
            self._tell(self._blocks.put_nowait, _public(error))
        finally:
            self._session.close()
            self._tell(self._gone)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and all viewers with it
            self._loop.call_soon_threadsafe(call, *arguments)

    def _add(self, block: tuple[Picture, ...]) -> None:
        self.num_blocks += 1
        self._blocks.put_nowait(block)

    def _gone(self) -> None:
        self._is_made = True
        self._end_if_done()

    def _end_if_done(self) -> None:
        """A world that failed is there until its last pictures have been shown."""
        if self._is_made and self._is_over.is_set():
            self.ended.set()
            self._on_end(self)


def _public(error: Exception) -> HttpError:
    """Return what viewers may know of what ended their world; the rest is in the log."""
    if isinstance(error, RequestError):
        return HttpError(422, error.message, "world_failed")
    LOGGER.error("a world failed", exc_info=None if isinstance(error, SwiftdiffError) else error)
    return HttpError(500, "this world failed; the server's log says why", "world_failed")
