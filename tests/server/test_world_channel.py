"""One world and its viewers, around a session whose blocks a test holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from patience import PATIENCE_S

from swiftdiff.errors import RequestError
from swiftdiff.server.errors import HttpError
from swiftdiff.server.world_channel import CLOSED, World
from swiftdiff.server.world_config import StreamConfig
from swiftdiff.server.world_metrics import WorldMetrics
from swiftdiff.server.world_viewer import Picture
from swiftdiff.world.session import Block, WorldSession


class HeldSession:
    """Makes blocks of two black frames; fails in the block that a test names.

    Attributes:
        go: Cleared, a block waits until it is set.
        made: Blocks so far.
        seed: Not looked at.
        said: What it was steered by.
        failure: Raised in place of block `fails_in`.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.made = self.seed = 0
        self.said: list[tuple[str, int | None]] = []
        self.fails_in = -1
        self.failure: Exception = RequestError("the clip is as long as it may be")
        self.closed = threading.Event()

    def next_block(self) -> Block:
        assert self.go.wait(PATIENCE_S)
        if self.made == self.fails_in:
            raise self.failure
        self.made += 1
        frames = np.zeros((2, 4, 4, 3), np.uint8)
        return Block(self.made - 1, "none", frames, torch.zeros(1), None)

    def steer(self, text: str, blocks: int | None = None) -> None:
        self.said.append((text, blocks))

    def close(self) -> None:
        self.go.set()
        self.closed.set()


def world_of(session: HeldSession, ended: list[World] | None = None, **options: Any) -> World:
    metrics = WorldMetrics(lambda: 0, lambda: 0, lambda: 0)
    gone: Callable[[World], None] = lambda world: None if ended is None else ended.append(world)  # noqa: E731
    config = StreamConfig(**({"queue_frames": 100} | options))
    return World("w", cast(WorldSession, session), fps=100_000.0, config=config, metrics=metrics, on_end=gone)


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def test_one_block_is_made_ahead_and_no_more_while_nobody_watches() -> None:
    async def run() -> None:
        session = HeldSession()
        world = world_of(session)
        await settled(lambda: world.num_blocks == 2)
        assert (session.made, world.num_frames) == (2, 0)
        viewer = world.watch()
        for index in range(4):
            picture = await viewer.take()
            assert isinstance(picture, Picture)
            assert (picture.index, picture.block) == (index, index // 2)
        world.leave(viewer)
        world.close()
        await world.ended.wait()
        assert session.closed.is_set()

    asyncio.run(run())


def test_what_is_asked_while_a_block_is_made_shows_in_the_next_one_at_the_latest() -> None:
    async def run() -> None:
        session = HeldSession()
        session.go.clear()
        world = world_of(session)
        await settled(lambda: world._num_begun == 1)
        assert await world.steer("push left", 1) == 1
        assert session.said == [("push left", 1)]
        world.close()
        await world.ended.wait()

    asyncio.run(run())


def test_a_world_that_fails_shows_what_it_made_and_then_why() -> None:
    async def run() -> None:
        session, ended = HeldSession(), []
        session.fails_in = 1
        world = world_of(session, ended)
        await settled(session.closed.is_set)
        await asyncio.sleep(0)
        assert ended == []  # what it made can still be seen
        viewer = world.watch()
        news = [await viewer.take() for _ in range(3)]
        assert [type(each) for each in news] == [Picture, Picture, HttpError]
        assert cast(HttpError, news[2]).message == "the clip is as long as it may be"
        await world.ended.wait()
        assert ended == [world]

    asyncio.run(run())


def test_a_failure_of_ours_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        session = HeldSession()
        session.fails_in, session.failure = 0, ZeroDivisionError("in /secret/path")
        viewer = world_of(session).watch()
        news = await viewer.take()
        assert isinstance(news, HttpError)
        assert (news.status, news.message) == (500, "this world failed; the server's log says why")

    asyncio.run(run())
    assert "/secret/path" in caplog.text


def test_who_comes_while_a_world_ends_is_told_so() -> None:
    async def run() -> None:
        session = HeldSession()
        session.go.clear()
        world = world_of(session)
        early = world.watch()
        world.close()
        late = world.watch()
        assert await early.take() is await late.take() is CLOSED

    asyncio.run(run())


def test_a_world_that_nobody_comes_to_watch_ends() -> None:
    async def run() -> None:
        session = HeldSession()
        world = world_of(session, idle_s=0.0)
        await world.ended.wait()
        assert session.closed.is_set()

    asyncio.run(run())


def test_a_world_with_a_viewer_does_not_end_by_itself() -> None:
    async def run() -> None:
        world = world_of(HeldSession(), idle_s=0.0)
        viewer = world.watch()
        for _ in range(20):
            assert isinstance(await viewer.take(), Picture)
        world.leave(viewer)
        await world.ended.wait()

    asyncio.run(run())
