"""Waiting requests that are alike are served as one where that was measured to be faster."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_server import ADDRESS, Running, StepSystem
from patience import PATIENCE_S, until
from PIL import Image

from swiftdiff.engine.clock import FakeClock
from swiftdiff.errors import AdapterError
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.server import batching
from swiftdiff.server.batching import BatchPlanner
from swiftdiff.server.job import Job
from swiftdiff.server.policies import POLICIES
from swiftdiff.server.waiting_room import WaitingRoom
from swiftdiff.systems.base import OnStep, Served
from swiftdiff.systems.switches import RequestSwitches

LEARNT = batching.UNCOUNTED + batching.NEEDED
HELD = 99


class BatchSystem(StepSystem):
    """Paints several requests' pictures at once.

    Attributes:
        batches: Seeds of each service that came to its end.
        failure: What services of several raise.
        hold: Called in every step with the seeds and the step's number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.failure: Exception | None = None
        self.hold: Callable[[list[int], int], None] = lambda seeds, step: None

    def serve_batch(
        self, requests: Sequence[ImageRequest], images_root: Path, on_steps: Sequence[OnStep | None]
    ) -> list[Served | Exception]:
        if len(requests) > 1 and self.failure is not None:
            raise self.failure
        seeds, num_steps = [request.seed for request in requests], requests[0].num_inference_steps
        left: dict[int, Exception] = {}
        pictures = [Image.new("RGB", (8, 8), (seed % 256, 0, 0)) for seed in seeds]
        for step in range(num_steps):
            for index, on_step in enumerate(on_steps):
                try:
                    if index not in left and on_step is not None:
                        on_step(
                            step, requests[0].num_inference_steps, partial(pictures[index : index + 1].copy)
                        )
                except Exception as error:
                    left[index] = error
                    if len(left) == len(requests):
                        raise
            self.hold(seeds, step)
        self.batches.append(seeds)
        return [
            left.get(index)
            or Served([pictures[index]] * request.num_images, {"denoise": 0.0}, bytes_loaded=0)
            for index, request in enumerate(requests)
        ]


def job(name: str, **fields: Any) -> Job:
    values: dict[str, Any] = {"timestamp": 0, "prompt": name, "seed": ord(name[0])}
    own = {key: fields.pop(key) for key in ("engine", "switches", "deadline_s") if key in fields}
    request = ImageRequest(request_id=name, **(values | fields))
    return Job(request, 0.0, own.pop("deadline_s", 600.0), lambda event: None, **own)


def planner(max_batch: int = 4, **seconds: float) -> BatchPlanner:
    """Return a planner that knows what pictures take, as in ``_2=0.5``."""
    made = BatchPlanner(max_batch, 128, FakeClock())
    for name, each in seconds.items():
        count = int(name[1:])
        for _ in range(LEARNT):
            made.note([job("x") for _ in range(count)], each * count)
    return made


def taken(planner: BatchPlanner, *jobs: Job) -> list[str]:
    """Return which jobs are taken along with the first that waits."""
    room = WaitingRoom(100, POLICIES["fifo"], 8)
    for each in jobs:
        assert room.enter(each)
    first = room.take_now()
    assert first is not None
    return [each.request.request_id for each in room.take_along(first, planner)]


def test_nothing_is_batched_until_it_is_known_how_long_one_takes() -> None:
    assert taken(planner(), job("a"), job("b")) == []


def test_a_size_is_tried_until_it_is_known_and_then_used_if_it_is_faster() -> None:
    made = planner(_1=1.0)
    for _ in range(LEARNT):
        assert taken(made, job("a"), job("b")) == ["b"]
        made.note([job("a"), job("b")], 1.4)
    assert taken(made, job("a"), job("b")) == ["b"]
    known = {(each.pictures, each.seconds) for each in made.measured()}
    assert known == {(1, 1.0), (2, 0.7)}


@pytest.mark.parametrize("seconds", [1.0, 0.97, 3.0])
def test_a_size_that_is_not_faster_is_not_used(seconds: float) -> None:
    assert taken(planner(_1=1.0, _2=seconds), job("a"), job("b"), job("c"), job("d")) == []


def test_the_first_service_of_a_size_which_captures_graphs_does_not_count() -> None:
    made = BatchPlanner(4, 128, FakeClock())
    for seconds in (60.0, *[1.0] * batching.NEEDED):
        made.note([job("a")], seconds)
    assert [each.seconds for each in made.measured()] == [1.0]


def test_the_fastest_size_is_used_and_not_the_largest() -> None:
    four = [job(name) for name in "abcd"]
    assert taken(planner(_1=1.0, _2=0.6, _4=0.5), *four) == ["b", "c", "d"]
    four = [job(name) for name in "abcd"]
    assert taken(planner(_1=1.0, _2=0.6, _4=0.9), *four) == ["b"]


def test_sizes_are_powers_of_two_and_the_largest_allowed() -> None:
    three = [job(name) for name in "abc"]
    assert taken(planner(_1=1.0, _2=0.6, _3=0.1), *three) == ["b"]
    three = [job(name) for name in "abc"]
    assert taken(planner(3, _1=1.0, _2=0.6, _3=0.5), *three) == ["b", "c"]


def test_pictures_are_counted_and_not_requests() -> None:
    made = planner(_1=1.0, _2=0.6, _4=0.5)
    assert taken(made, job("a", num_images=2), job("b"), job("c"), job("d")) == ["b", "c"]
    assert taken(made, job("a"), job("b", num_images=4), job("c")) == []


def test_one_switches_batches_off() -> None:
    assert taken(planner(1, _1=1.0, _2=0.1), job("a"), job("b")) == []


def test_what_a_size_was_turned_down_for_is_doubted_after_a_while() -> None:
    made = planner(_1=1.0, _2=2.0)
    tried = [taken(made, job("a"), job("b")) for _ in range(batching.DOUBTED_AFTER + 1)]
    assert tried == [[]] * batching.DOUBTED_AFTER + [["b"]]
    made.note([job("a"), job("b")], 0.5)
    assert taken(made, job("a"), job("b")) == []  # one good moment does not make it fast


def test_a_size_that_failed_is_never_tried_again() -> None:
    made = planner(_1=1.0)
    made.note_failure([job("a"), job("b")])
    assert not any(taken(made, job("a"), job("b")) for _ in range(2 * batching.DOUBTED_AFTER))


def test_nobody_is_taken_along_who_would_come_too_late_in_a_batch() -> None:
    made = planner(_1=1.0, _2=0.6)
    assert taken(made, job("a", slo_ms=1500.0), job("b")) == []
    assert taken(made, job("a"), job("b", deadline_s=1.5)) == []
    assert taken(made, job("a", slo_ms=2500.0), job("b")) == ["b"]


def test_kinds_of_requests_are_measured_apart_and_only_so_many_are_kept() -> None:
    made = planner(_1=1.0, _2=0.5)
    assert taken(made, job("a", width=256), job("b", width=256)) == []
    for steps in range(1, batching.MAX_KINDS + 20):
        made.note([job("a", num_inference_steps=steps)], 1.0)
    assert len(made._kinds) == batching.MAX_KINDS


GOLD, NEON = LoraUse(id="gold"), LoraUse(id="neon")
EDGES = ControlNetUse(id="edges", image="a.png")


@pytest.mark.parametrize(
    "other",
    [
        {"num_inference_steps": 9},
        {"guidance_scale": 2.0},
        {"height": 64},
        {"loras": (NEON,)},
        {"loras": (GOLD.model_copy(update={"scale": 0.5}),)},
        {"loras": (GOLD, NEON)},
        {"controlnets": ()},
        {"controlnets": (EDGES.model_copy(update={"start": 0.5}),)},
        {"engine": "diffusers"},
        {"switches": RequestSwitches(bal_k=3)},
    ],
)
def test_requests_that_differ_in_more_than_they_may_are_no_batch(other: dict[str, Any]) -> None:
    made = planner()
    same: dict[str, Any] = {"loras": (GOLD,), "controlnets": (EDGES,)}
    one = job("a", **same)
    own = job(
        "b", **(same | {"controlnets": (EDGES.model_copy(update={"image": "b.png"}),), "num_images": 2})
    )
    assert made.find_alike(one, [own, job("c", **(same | other))]) == [own]


def test_jobs_are_taken_along_in_the_policys_order_and_count_as_overtaking() -> None:
    room = WaitingRoom(100, POLICIES["edf"], 8)
    jobs = {
        "first": job("first", slo_ms=1e4),
        "between": job("between", loras=(GOLD,), slo_ms=2e4),
        "late": job("late"),
        "sooner": job("sooner", slo_ms=3e4),
    }
    for each in jobs.values():
        room.enter(each)
    first = room.take_now()
    assert first is jobs["first"]
    assert room.take_along(first, planner(_1=1.0, _2=0.5)) == [jobs["sooner"]]
    assert (jobs["between"].overtaken, jobs["late"].overtaken) == (1, 1)
    assert len(room) == 2


@pytest.fixture
def system() -> BatchSystem:
    return BatchSystem()


Start = Callable[..., Running]


def learn(running: Running, times: int = LEARNT) -> None:
    """Let the server measure what one request takes."""
    for seed in range(times):
        assert running.post(seed=seed).status_code == 200


@contextmanager
def waiting_together(
    running: Running, system: BatchSystem, ask: Sequence[Callable[[], Any]]
) -> Iterator[list[Future[Any]]]:
    """Send requests that wait behind one that is held, in their order; leaving the block lets it go on."""
    began, go = threading.Event(), threading.Event()

    def hold(seeds: list[int], step: int) -> None:
        if seeds == [HELD]:
            began.set()
            assert go.wait(PATIENCE_S)

    system.hold = hold
    with ThreadPoolExecutor(len(ask) + 1) as pool:
        pool.submit(running.post, seed=HELD, loras=[{"id": "gold"}])
        assert began.wait(PATIENCE_S)
        asked = []
        for number, each in enumerate(ask, start=1):
            asked.append(pool.submit(each))
            until(lambda number=number: len(running.server.room) == number)  # type: ignore[misc]
        yield asked
        go.set()


def posting(running: Running, *seeds: int, **fields: Any) -> list[Callable[[], httpx.Response]]:
    return [partial(running.post, seed=seed, **fields) for seed in seeds]


def test_requests_that_wait_together_are_served_as_one_each_with_its_own_picture(
    start: Start, system: BatchSystem
) -> None:
    server = start()
    learn(server)
    with waiting_together(server, system, posting(server, 10, 11, 12, 13)) as asked:
        pass
    answers = [future.result() for future in asked]
    assert system.batches[-2:] == [[10, 11], [12, 13]]  # two is what is tried first
    how = [answer.json()["swiftdiff"] for answer in answers]
    assert [each["seed"] for each in how] == [10, 11, 12, 13]
    assert {each["batch_size"] for each in how} == {2}
    assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 4
    records = {record["request_id"]: record for record in server.records()}
    assert [records[each["request_id"]]["batch_size"] for each in how] == [2, 2, 2, 2]
    text = server.client.get("/metrics").text
    assert f"swiftdiff_batch_pictures_sum {LEARNT + 5}.0" in text
    assert f'swiftdiff_batch_pictures_bucket{{le="2.0"}} {LEARNT + 3}.0' in text
    assert re.search(r'swiftdiff_batch_seconds_per_picture\{[^}]*pictures="1"[^}]*steps="20"[^}]*\} \d', text)


def test_a_device_is_counted_once_however_many_requests_share_it(start: Start, system: BatchSystem) -> None:
    server = start()
    learn(server)
    with waiting_together(server, system, posting(server, 10, 11)) as asked:
        pass
    served = {future.result().json()["swiftdiff"]["request_id"] for future in asked}
    records = [line["record"] for line in server.records() if line["request_id"] in served]
    for record in records:
        busy_s = record["latency_s"] - record["queue_wait_s"]
        assert 0 < record["device_seconds"] <= busy_s / 2


def test_no_batches_are_made_of_one_picture_at_most(start: Start, system: BatchSystem) -> None:
    server = start(max_batch=1)
    learn(server)
    with waiting_together(server, system, posting(server, 10, 11)):
        pass
    assert system.batches[-2:] == [[10], [11]]


def test_who_leaves_a_batch_is_recorded_with_its_stages_and_the_others_are_served(
    start: Start, system: BatchSystem
) -> None:
    server = start()
    learn(server)

    def leave_after_a_look() -> None:
        body = {"prompt": "a red circle", "seed": 11, "stream": True, "partial_images": 1}
        with server.client.stream("POST", ADDRESS, json=body) as answer:
            next(line for line in answer.iter_lines() if line.startswith("data:"))

    def hold(seeds: list[int], step: int) -> None:
        if seeds == [10, 11] and step == 12:  # its picture is shown before step 10
            until(lambda: 499 in {line["http_status"] for line in server.records()})

    with waiting_together(server, system, [*posting(server, 10), leave_after_a_look]) as asked:
        held = system.hold
        system.hold = lambda seeds, step: held(seeds, step) if seeds == [HELD] else hold(seeds, step)
    assert asked[0].result().status_code == 200
    assert system.batches[-1] == [10, 11]
    (line,) = [line for line in server.records() if line["http_status"] == 499]
    assert line["record"]["stages"]["text_encode"] == 0.001
    assert line["record"]["error_kind"] == "HttpError"
    until(lambda: server.server.worker.in_service == ())


@pytest.mark.parametrize(
    ("failure", "batched_again"), [(RuntimeError("out of memory"), False), (AdapterError("no such"), True)]
)
def test_when_a_batch_fails_each_of_its_requests_is_served_alone(
    start: Start, system: BatchSystem, failure: Exception, batched_again: bool
) -> None:
    server = start()
    learn(server)
    system.failure = failure
    with waiting_together(server, system, posting(server, 10, 11)) as asked:
        pass
    assert [future.result().status_code for future in asked] == [200, 200]
    assert system.batches[-2:] == [[10], [11]]
    system.failure = None
    with waiting_together(server, system, posting(server, 20, 21)):
        pass
    assert ([20, 21] in system.batches) == batched_again
