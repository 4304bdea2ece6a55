"""What one client sees of a world: a bounded queue, and pictures that a browser takes apart."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from world_server import Part, read_parts

from swiftdiff.server.world_channel import CLOSED, Pace
from swiftdiff.server.world_viewer import TOO_SLOW, FrameStream, Picture, Viewer, encode_frame


def picture(index: int, prompt: str = "none") -> Picture:
    return Picture(index, index // 3, prompt, bytes([index]), "image/png")


def viewer(places: int = 3, max_missed: int = 100) -> tuple[Viewer, list[int]]:
    dropped: list[int] = []
    return Viewer(places, max_missed, lambda: dropped.append(1)), dropped


def test_a_viewer_that_lags_loses_the_oldest_pictures_and_they_are_counted() -> None:
    async def lag() -> None:
        slow, dropped = viewer(places=3)
        for index in range(8):
            slow.offer(picture(index))
        slow.end(CLOSED)
        taken = [await slow.take() for _ in range(4)]
        assert [each.index for each in taken[:3] if isinstance(each, Picture)] == [5, 6, 7]
        assert taken[3] is CLOSED
        assert (slow.missed, len(dropped)) == (5, 5)

    asyncio.run(lag())


def test_a_viewer_that_takes_nothing_is_sent_away_but_one_that_is_slow_is_not() -> None:
    async def watch() -> None:
        slow, _ = viewer(places=1, max_missed=3)
        for index in range(9):
            slow.offer(picture(index))
            if index % 3 == 2:
                await slow.take()
        assert slow.missed == 6
        assert not slow.cut.is_set()
        for index in range(4):
            slow.offer(picture(index))
        assert slow.cut.is_set()

    asyncio.run(watch())


def test_who_waits_for_pictures_gets_the_next_one() -> None:
    async def watch() -> None:
        quick, _ = viewer()
        waiting = asyncio.create_task(quick.take())
        await asyncio.sleep(0)
        quick.offer(picture(4))
        assert await waiting == picture(4)

    asyncio.run(watch())


async def sent_by(each: Viewer) -> bytes:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await FrameStream(each, lambda: None)({"type": "http"}, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


def parts_of(*pictures: Picture) -> list[Part]:
    async def run() -> bytes:
        each, _ = viewer()
        for one in pictures:
            each.offer(one)
        each.end(CLOSED)
        return await sent_by(each)

    return list(read_parts(iter([asyncio.run(run())])))


def test_pictures_go_one_after_another_and_the_end_says_why() -> None:
    parts = parts_of(picture(0), picture(4))
    assert [part.data for part in parts[:2]] == [b"\0", b"\4"]
    assert parts[1].headers == {
        "Content-Type": "image/png",
        "Content-Length": "1",
        "X-Frame": "4",
        "X-Block": "1",
        "X-Prompt": "none",
        "X-Missed": "0",
    }
    assert [part.error["code"] for part in parts[2:]] == ["world_ended"]


def test_a_prompt_cannot_forge_headers() -> None:
    part = parts_of(picture(0, "a\r\nX-Missed: 7\r\n\r\nbälle"))[0]
    assert part.headers["X-Missed"] == "0"
    assert part.headers["X-Prompt"] == "a%0D%0AX-Missed%3A%207%0D%0A%0D%0Ab%C3%A4lle"


def test_a_client_that_never_reads_is_let_go_of_although_sending_never_ends() -> None:
    left: list[int] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def run() -> None:
        stuck, _ = viewer(places=2, max_missed=5)
        stream = FrameStream(stuck, lambda: left.append(1))
        task = asyncio.create_task(stream({"type": "http"}, receive, send))
        for index in range(8):
            await asyncio.sleep(0)
            stuck.offer(picture(index))
        await task
        assert left == [1]
        assert await stuck.take() == picture(6)
        await stuck.take()
        assert await stuck.take() is TOO_SLOW

    asyncio.run(run())


def test_frames_are_due_at_equal_intervals_and_late_ones_are_not_caught_up() -> None:
    pace = Pace(10.0)
    now_s, shown_s = 100.0, []
    for busy_s in (0.0, 0.02, 0.03, 0.5, 0.01, 0.0):
        now_s += busy_s
        now_s += pace.wait_s(now_s)
        shown_s.append(now_s)
    assert shown_s == pytest.approx([100.0, 100.1, 100.2, 100.7, 100.8, 100.9])


def test_small_frames_arrive_bit_for_bit_and_large_ones_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    data, media_type = encode_frame(noise)
    assert media_type == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), noise)
    data, media_type = encode_frame(np.full((480, 832, 3), 90, np.uint8))
    assert media_type == "image/jpeg"
    assert Image.open(io.BytesIO(data)).size == (832, 480)
