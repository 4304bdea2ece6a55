"""Owns what one client sees of a world: a bounded queue of pictures, and how they go over HTTP."""

from __future__ import annotations

import asyncio
import io
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from swiftdiff.server.errors import HttpError

if TYPE_CHECKING:
    import numpy as np

BOUNDARY = "frame"
MEDIA_TYPE = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
LOSSLESS_PIXELS = 256 * 256  # larger pictures take too long as PNG files
GRACE_S = 2.0  # for the last pictures to leave
UNSENT_BYTES = 16384
STALLED_S = 30.0
TOO_SLOW = HttpError(408, "this viewer took no picture for too long", "viewer_too_slow")


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame of a world, ready to be sent.

    Attributes:
        index: Of the frame, from the world's begin.
        block: That it is of.
        prompt: What the block was made with.
        data: A file.
        media_type: Of the file.
    """

    index: int
    block: int
    prompt: str
    data: bytes
    media_type: str


def encode_frame(pixels: np.ndarray) -> tuple[bytes, str]:
    """Return a frame, uint8 [H, W, 3], as a file and its media type: PNG if small, else JPEG."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if image.width * image.height <= LOSSLESS_PIXELS:
        image.save(file, format="PNG", compress_level=1)
        return file.getvalue(), "image/png"
    image.save(file, format="JPEG", quality=90)
    return file.getvalue(), "image/jpeg"


def keep_live(listener: socket.socket) -> None:
    """Let connections hold little that is not on its way yet, and end those that take nothing for long.

    Without it the system keeps megabytes for a slow client: minutes of small pictures, all of them old.
    """
    for name, value in (("TCP_NOTSENT_LOWAT", UNSENT_BYTES), ("TCP_USER_TIMEOUT", int(STALLED_S * 1000))):
        option = getattr(socket, name, None)  # not every system has them
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


class Viewer:
    """Pictures on their way to one client. For the event loop.

    Args:
        places: Pictures that may wait; the oldest is dropped for a new one.
        max_missed: Pictures dropped in a row after which the client is sent away.
        on_drop: Called for each.

    Attributes:
        missed: Pictures that were dropped.
        cut: Set when the client shall be sent away, whatever is still being sent.
    """

    def __init__(self, places: int, max_missed: int, on_drop: Callable[[], None]) -> None:
        self.missed = 0
        self.cut = asyncio.Event()
        self._missed_in_a_row = 0
        self._places = places
        self._max_missed = max_missed
        self._on_drop = on_drop
        self._pictures: deque[Picture] = deque()
        self._reason: HttpError | None = None
        self._news = asyncio.Event()

    def offer(self, picture: Picture) -> None:
        """Let a picture wait to be sent; never waits itself."""
        if len(self._pictures) == self._places:
            self._pictures.popleft()
            self.missed += 1
            self._missed_in_a_row += 1
            self._on_drop()
            if self._missed_in_a_row >= self._max_missed:
                self.end(TOO_SLOW)
                self.cut.set()
        self._pictures.append(picture)
        self._news.set()

    def end(self, reason: HttpError) -> None:
        """Let the stream end after what waits, or soon if the client does not take it."""
        self._reason = self._reason or reason
        self._news.set()
        asyncio.get_running_loop().call_later(GRACE_S, self.cut.set)

    async def take(self) -> Picture | HttpError:
        """Return the oldest picture, or at the end why it is the end; waits for it."""
        while not self._pictures:
            if self._reason is not None:
                return self._reason
            self._news.clear()
            await self._news.wait()
        self._missed_in_a_row = 0
        return self._pictures.popleft()


class FrameStream(StreamingResponse):
    """Pictures as a browser's ``<img>`` takes them, each in place of the last; at the end, why, as JSON.

    Args:
        viewer: Gets the pictures.
        leave: Called when the client has all, or is gone, or was sent away.
    """

    def __init__(self, viewer: Viewer, leave: Callable[[], None]) -> None:
        self._viewer = viewer
        self._leave = leave
        headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
        super().__init__(_parts(viewer), media_type=MEDIA_TYPE, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        sending = asyncio.ensure_future(super().__call__(scope, receive, send))
        cut = asyncio.ensure_future(self._viewer.cut.wait())
        try:
            # A client that does not read holds up the sending, and so would hold up a server that ends.
            await asyncio.wait({sending, cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._leave()
            sending.cancel()
            cut.cancel()
            await asyncio.gather(sending, cut, return_exceptions=True)


async def _parts(viewer: Viewer) -> AsyncIterator[bytes]:
    yield f"--{BOUNDARY}\r\n".encode()
    while isinstance(news := await viewer.take(), Picture):
        about = {
            "X-Frame": str(news.index),
            "X-Block": str(news.block),
            "X-Prompt": quote(news.prompt),
            "X-Missed": str(viewer.missed),
        }
        yield _part(news.data, news.media_type, about)
    yield _part(news.body().model_dump_json().encode(), "application/json", {})


def _part(data: bytes, media_type: str, about: dict[str, str]) -> bytes:
    """Return a part and the boundary after it: a browser shows a picture when it has seen that."""
    headers = {"Content-Type": media_type, "Content-Length": str(len(data))} | about
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return lines.encode() + b"\r\n" + data + f"\r\n--{BOUNDARY}\r\n".encode()
