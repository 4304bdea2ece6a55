"""Worlds over HTTP: a real server and a real engine, whose weights are random."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import pytest
from patience import PATIENCE_S, until
from tiny_world import build_tiny_world
from world_server import FRAMES_PER_BLOCK, QUICK, SCENE, Part, RunningWorlds, showing

from swiftdiff.server.world_config import StreamConfig
from swiftdiff.world.config import CacheConfig
from swiftdiff.world.engine import WorldEngine
from swiftdiff.world.loading import WorldModel
from swiftdiff.world.session import Block


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return build_tiny_world()


@pytest.fixture(scope="module")
def worlds(model: WorldModel) -> Iterator[RunningWorlds]:
    with showing(model) as running:
        yield running


@pytest.fixture(autouse=True)
def no_world_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "worlds" in request.fixturenames:
        service = request.getfixturevalue("worlds").service
        for world in service.worlds:
            request.getfixturevalue("worlds").client.delete(f"/v1/worlds/{world.id}")
        assert service.engine.sessions == ()


def take(parts: Iterator[Part], count: int) -> list[Part]:
    return list(itertools.islice(parts, count))


def code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def test_the_stream_shows_what_the_engine_makes_bit_for_bit(worlds: RunningWorlds, model: WorldModel) -> None:
    world = worlds.begin(seed=5)
    with worlds.watch(world) as parts:
        shown = take(parts, 3 * FRAMES_PER_BLOCK)
    assert [int(part.headers["X-Frame"]) for part in shown] == list(range(9))
    assert [int(part.headers["X-Block"]) for part in shown] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with WorldEngine(model, QUICK) as engine, engine.open(SCENE, 5) as session:
        made = np.concatenate([session.next_block().frames for _ in range(3)])
    assert np.array_equal(np.stack([part.pixels for part in shown]), made)


def test_an_action_steers_one_block_from_the_next_boundary_on(worlds: RunningWorlds) -> None:
    world = worlds.begin()
    with worlds.watch(world) as parts:
        take(parts, 1)
        answer = worlds.steer(world, "push left")
        assert answer.status_code == 200
        latest = answer.json()["from_block"]
        prompts: dict[int, str] = {}
        for part in parts:
            prompts[int(part.headers["X-Block"])] = part.headers["X-Prompt"]
            if int(part.headers["X-Block"]) > latest + 1:
                break
    steered = [block for block, prompt in prompts.items() if prompt == "push%20left"]
    assert len(steered) == 1
    assert 0 < steered[0] <= latest
    assert prompts[steered[0] + 1] == "none"


def test_an_action_that_does_not_exist_is_one_clear_error_and_the_world_goes_on(
    worlds: RunningWorlds,
) -> None:
    world = worlds.begin()
    with worlds.watch(world) as parts:
        take(parts, 1)
        answer = worlds.steer(world, "push lefft")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "text"
        assert "did you mean 'push left'?" in answer.json()["error"]["message"]
        assert [part.headers["X-Prompt"] for part in take(parts, 12)[3:]] == ["none"] * 9


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/worlds", {"prompt": "a cat"}, "prompt"),
        ("/v1/worlds", {"prompt": ""}, "prompt"),
        ("/v1/worlds", {"prompt": 5}, "prompt"),
        ("/v1/worlds", {"prompt": "x" * 4001}, "prompt"),
        ("/v1/worlds", {"prompt": SCENE, "seed": -1}, "seed"),
        ("/v1/worlds", {"prompt": SCENE, "sede": 1}, "sede"),
        ("/v1/worlds", [SCENE], None),
        ("/v1/worlds/{world}/steer", {"text": "push left", "blocks": 0}, "blocks"),
        ("/v1/worlds/{world}/steer", {}, "text"),
    ],
)
def test_a_wrong_body_is_refused_and_says_which_field(
    worlds: RunningWorlds, path: str, body: object, param: str | None
) -> None:
    world = worlds.begin()
    answer = worlds.client.post(path.format(world=world), json=body)
    assert answer.status_code == 400
    code(answer)
    assert answer.json()["error"]["param"] == param
    assert "/" not in answer.json()["error"]["message"]


def test_a_page_of_another_origin_cannot_begin_or_steer_worlds(worlds: RunningWorlds) -> None:
    # What a browser sends across origins without asking first is no JSON.
    plain = {"Content-Type": "text/plain"}
    assert worlds.client.post("/v1/worlds", content=b"{}", headers=plain).status_code == 415
    assert worlds.client.get("/v1/worlds", headers={"Host": "evil.example"}).status_code == 421


def test_a_world_that_is_not_there_is_not_found(worlds: RunningWorlds) -> None:
    for answer in (
        worlds.client.get("/v1/worlds/nosuch"),
        worlds.client.get("/v1/worlds/nosuch/frames"),
        worlds.client.delete("/v1/worlds/nosuch"),
        worlds.steer("nosuch", "push left"),
    ):
        assert answer.status_code == 404
        assert code(answer) == "world_not_found"


def test_more_worlds_than_fit_are_refused_until_one_has_ended(worlds: RunningWorlds) -> None:
    offer = worlds.client.get("/v1/worlds").json()
    names = [worlds.begin(seed=seed) for seed in range(offer["max_worlds"])]
    answer = worlds.client.post("/v1/worlds", json={"prompt": SCENE})
    assert answer.status_code == 429
    assert code(answer) == "no_place"
    assert int(answer.headers["Retry-After"]) >= 1
    assert worlds.client.delete(f"/v1/worlds/{names[0]}").status_code == 204
    worlds.begin()


def test_a_wrong_method_is_told_which_are_right(worlds: RunningWorlds) -> None:
    answer = worlds.client.put("/v1/worlds")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
    assert worlds.client.post("/v1/worlds/x").headers["Allow"] == "DELETE, GET"
    assert worlds.client.get("/v1/worlds/x/steer").headers["Allow"] == "POST"


def test_what_is_offered_can_be_asked_for(worlds: RunningWorlds) -> None:
    offer = worlds.client.get("/v1/worlds").json()
    assert offer["model"] == "tiny"
    world = worlds.begin(prompt=offer["example"])
    for action in offer["actions"]:
        assert worlds.steer(world, action).status_code == 200
    assert set(offer["actions"]) == {"push left", "push right", "push up", "push down", "colour"}


def test_a_world_that_nobody_watches_stands_still(worlds: RunningWorlds) -> None:
    world = worlds.begin()
    with worlds.watch(world) as parts:
        take(parts, 4)
    until(lambda: worlds.client.get(f"/v1/worlds/{world}").json()["viewers"] == 0)
    before = worlds.client.get(f"/v1/worlds/{world}").json()["frames_shown"]
    other = worlds.begin()
    with worlds.watch(other) as parts:
        take(parts, 30)
    assert worlds.client.get(f"/v1/worlds/{world}").json()["frames_shown"] == before
    with worlds.watch(world) as parts:
        assert int(take(parts, 1)[0].headers["X-Frame"]) == before


def test_two_watch_one_world(worlds: RunningWorlds) -> None:
    world = worlds.begin()
    with worlds.watch(world) as one, worlds.watch(world) as two:
        second = {part.headers["X-Frame"]: part.data for part in take(two, 6)}
        first = (part for part in one if part.headers["X-Frame"] in second)
        assert {part.headers["X-Frame"]: part.data for part in take(first, 6)} == second


def never_read(worlds: RunningWorlds, world: str) -> socket.socket:
    """Ask for a world's frames and read none."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(worlds.url.rsplit(":", 1)[1])))
    client.sendall(f"GET /v1/worlds/{world}/frames HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


@contextmanager
def read_aside(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """Read a stream on a thread of its own, as fast as it comes, until it ends."""
    read: list[Part] = []

    def go_on() -> None:
        with suppress(httpx.HTTPError, httpx.StreamError):  # the block has closed it
            for part in parts:
                read.append(part)

    reader = threading.Thread(target=go_on)
    reader.start()
    yield read
    reader.join(PATIENCE_S)


def keep_pace_with(worlds: RunningWorlds, read: list[Part]) -> None:
    """Make no block before a viewer has read almost all that was shown: it loses none, however slow it is."""
    (world,) = worlds.service.worlds
    next_block = world._session.next_block

    def when_wanted() -> Block:
        until(lambda: len(read) >= FRAMES_PER_BLOCK * (world.num_blocks - 3) or world._is_over.is_set())
        return next_block()

    world._session.next_block = when_wanted  # type: ignore[method-assign]


def test_a_client_that_never_reads_loses_frames_holds_up_nobody_and_is_sent_away(model: WorldModel) -> None:
    stream = StreamConfig(fps=200.0, queue_frames=20, max_missed=30, idle_s=600.0)
    with showing(model, stream=stream) as worlds:
        world = worlds.begin()
        with never_read(worlds, world), worlds.watch(world) as parts, read_aside(parts) as read:
            keep_pace_with(worlds, read)
            until(lambda: worlds.client.get(f"/v1/worlds/{world}").json()["frames_missed"] >= 30)
            until(lambda: worlds.client.get(f"/v1/worlds/{world}").json()["viewers"] == 1)
            assert worlds.metric("swiftdiff_world_frames_missed_total") >= 30
            so_far = len(read)
            until(lambda: len(read) > so_far + 6)
            assert worlds.client.delete(f"/v1/worlds/{world}").status_code == 204
        assert read[-1].error["code"] == "world_ended"


def test_more_viewers_than_may_be_are_refused(model: WorldModel) -> None:
    with showing(model, stream=StreamConfig(fps=200.0, max_viewers=1, idle_s=600.0)) as worlds:
        world = worlds.begin()
        with worlds.watch(world) as parts:
            take(parts, 1)
            answer = worlds.client.get(f"/v1/worlds/{world}/frames")
            assert answer.status_code == 429
            assert code(answer) == "too_many_viewers"
            take(parts, 3)
        until(lambda: worlds.service.num_viewers == 0)
        with worlds.watch(world) as parts:
            take(parts, 1)


def test_a_world_ends_when_its_last_viewer_has_left(model: WorldModel) -> None:
    with showing(model) as worlds:
        world = worlds.begin()
        with worlds.watch(world) as parts:
            take(parts, 4)
            (shown,) = worlds.service.worlds
            shown._config = StreamConfig(idle_s=0.1)  # not before, or it might end before anybody watches
        until(lambda: worlds.client.get(f"/v1/worlds/{world}").status_code == 404)
        assert worlds.service.engine.sessions == ()


def test_a_world_that_cannot_go_on_says_why_and_others_do_go_on(model: WorldModel) -> None:
    config = QUICK.model_copy(update={"cache": CacheConfig(policy="full", max_blocks=2)})
    with showing(model, config) as worlds:
        world, other = worlds.begin(), worlds.begin(seed=1)
        with worlds.watch(world) as parts:
            shown = list(parts)
        assert len(shown) == 2 * FRAMES_PER_BLOCK + 1
        assert shown[-1].error["code"] == "world_failed"
        assert "max_blocks" in shown[-1].error["message"]
        with worlds.watch(other) as parts:
            take(parts, 2)
        until(lambda: len(worlds.service.engine.sessions) <= 1)


def test_the_end_of_the_server_ends_streams_and_says_so(model: WorldModel) -> None:
    with showing(model) as worlds:
        world = worlds.begin()
        with never_read(worlds, world), worlds.watch(world) as parts, read_aside(parts) as read:
            until(lambda: len(read) > 3)
            assert worlds.stop()
        assert read[-1].error["code"] == "server_draining"


def test_a_key_is_needed_if_there_is_one(model: WorldModel) -> None:
    with showing(model, api_key="open sesame") as worlds:
        for path in ("/v1/worlds", "/v1/worlds/x/frames", "/metrics"):
            assert worlds.client.get(path).status_code == 401
        assert worlds.client.get("/world/").status_code == 200
        worlds.client.headers["Authorization"] = "Bearer open sesame"
        with worlds.watch(worlds.begin()) as parts:
            take(parts, 1)


def test_metrics_tell_what_happens(worlds: RunningWorlds) -> None:
    before = worlds.metric("swiftdiff_world_frames_total")
    world = worlds.begin()
    with worlds.watch(world) as parts:
        take(parts, 6)
        assert worlds.metric("swiftdiff_worlds") == 1
        assert worlds.metric("swiftdiff_world_viewers") == 1
        session_bytes = worlds.service.engine.session_bytes
        assert worlds.metric("swiftdiff_world_cache_bytes") == session_bytes > 0
    worlds.steer(world, "nonsense")
    assert worlds.metric('swiftdiff_world_refusals_total{kind="not_understood"}') >= 1
    assert worlds.metric("swiftdiff_world_frames_total") >= before + 6


def test_the_document_tells_of_worlds(worlds: RunningWorlds) -> None:
    paths = worlds.client.get("/openapi.json").json()["paths"]
    body = paths["/v1/worlds"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["prompt"]
    assert set(paths["/v1/worlds/{world}/steer"]["post"]["responses"]) >= {"200", "400", "404", "415"}
    assert "422" not in paths["/v1/worlds/{world}/steer"]["post"]["responses"]
