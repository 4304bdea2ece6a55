"""Requests that wait, are refused, come too late or are left by their client."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_server import ADDRESS, Running, StepSystem
from patience import until

from swiftdiff.errors import AdapterError
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import Served

Start = Callable[..., Running]


def in_background(running: Running, count: int, **fields: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=running.post, kwargs={"seed": i} | fields) for i in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(start: Start, system: StepSystem) -> None:
    running = start(queue_size=2)
    system.go.clear()
    threads = in_background(running, 1)
    until(system.began.is_set)  # else the last of three finds the queue full as long as the first is in it
    threads += in_background(running, 2)
    until(lambda: len(running.server.room) == 2)
    refused = running.post()
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    system.go.set()
    for thread in threads:
        thread.join()
    assert running.post().status_code == 200
    statuses = sorted(record["http_status"] for record in running.records())
    assert statuses == [200, 200, 200, 200, 429]


def test_a_deadline_ends_a_request_in_the_queue_and_frees_its_place(start: Start, system: StepSystem) -> None:
    running = start(queue_size=1)
    system.go.clear()
    threads = in_background(running, 1)
    until(system.began.is_set)
    late = running.post(slo_ms=200)
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline_exceeded"
    assert late.headers["X-Should-Retry"] == "false"
    assert len(running.server.room) == 0
    system.go.set()
    for thread in threads:
        thread.join()
    assert [record["http_status"] for record in running.records()] == [504, 200]


def test_a_deadline_ends_a_request_between_its_steps(start: Start, system: StepSystem) -> None:
    running = start()
    system.go.clear()
    for slo_ms in (300, 3_000, 30_000):  # a slow machine may not have begun with it when its time is over
        assert running.post(slo_ms=slo_ms, num_inference_steps=5).status_code == 504
        if system.began.is_set():
            break
    system.go.set()
    until(lambda: bool(system.left))
    assert system.served == []
    assert running.post(seed=3).status_code == 200


def test_an_slo_may_be_a_target_only(start: Start) -> None:
    running = start(slo="target")
    assert running.post(slo_ms=0.001).status_code == 200
    assert running.records()[0]["record"]["slo_met"] is False


def test_a_client_that_leaves_the_queue_frees_its_place(start: Start, system: StepSystem) -> None:
    running = start(queue_size=1)
    system.go.clear()
    threads = in_background(running, 1)
    until(system.began.is_set)
    with running.left():
        until(lambda: len(running.server.room) == 1)
    until(lambda: len(running.server.room) == 0)
    system.go.set()
    for thread in threads:
        thread.join()
    until(lambda: len(running.records()) == 2)
    assert sorted(record["http_status"] for record in running.records()) == [200, 499]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_between_steps_ends_its_request(
    start: Start, system: StepSystem, stream: bool
) -> None:
    running = start()
    system.go.clear()
    with running.left(stream=stream, loras=[{"id": "gold"}], num_inference_steps=9):
        until(system.began.is_set)
    until(lambda: bool(running.records()))
    system.go.set()
    until(lambda: len(system.left) == 1)
    assert running.records()[0]["code"] == "client_left"
    assert running.post().status_code == 200
    until(lambda: system.in_weights is None)


def test_what_stayed_in_the_weights_for_a_request_goes_when_that_request_leaves(
    start: Start, system: StepSystem
) -> None:
    running = start()
    system.go.clear()
    threads = in_background(running, 1, loras=[{"id": "gold"}])
    until(system.began.is_set)
    kept: list[object] = []
    finish = system.finish

    def finish_before_the_follower_leaves() -> None:
        finish()
        kept.append(system.in_weights)
        system.finish = finish  # type: ignore[method-assign]
        until(lambda: len(running.server.room) == 0)

    system.finish = finish_before_the_follower_leaves  # type: ignore[method-assign]
    with running.left(loras=[{"id": "gold"}]):
        until(lambda: len(running.server.room) == 1)
        system.go.set()
        until(lambda: bool(kept))
    for thread in threads:
        thread.join()
    until(lambda: system.in_weights is None)
    assert kept[0] is not None


def test_requests_sent_together_are_each_answered_with_their_own_picture(start: Start) -> None:
    running = start()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: running.post(seed=seed), range(40)))
    assert [answer.json()["swiftdiff"]["seed"] for answer in answers] == list(range(40))
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 40
    assert len(running.records()) == 40


def test_a_client_may_ask_for_the_picture_itself(start: Start) -> None:
    running = start()
    body = {"prompt": "a red circle", "seed": 9}
    answer = running.client.post(ADDRESS, json=body, headers={"Accept": "image/png"})
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Seed"] == "9"
    assert answer.content.startswith(b"\x89PNG")


def test_health_readiness_and_metrics_tell_how_it_goes(start: Start, system: StepSystem) -> None:
    running = start(queue_size=5)
    running.post(seed=1, num_inference_steps=2)
    running.post(n=99)
    assert running.client.get("/health").json() == {"status": "ok", "detail": None}
    assert running.client.get("/ready").status_code == 200
    text = running.client.get("/metrics").text
    for line in (
        'swiftdiff_requests_total{status="200"} 1.0',
        'swiftdiff_requests_total{status="400"} 1.0',
        'swiftdiff_errors_total{kind="limit_exceeded"} 1.0',
        "swiftdiff_queue_places 5.0",
        "swiftdiff_queue_waiting 0.0",
        'swiftdiff_stage_seconds_count{stage="denoise"} 1.0',
        "swiftdiff_request_seconds_count 1.0",
    ):
        assert line in text, line


def test_what_a_full_disk_keeps_from_being_answered_is_not_counted_as_answered(start: Start) -> None:
    running = start(access_log="/dev/full")
    assert running.post().status_code == 503
    assert running.post(n=99).status_code == 400  # a refusal needs no record
    text = running.client.get("/metrics").text
    assert 'swiftdiff_requests_total{status="503"} 1.0' in text
    assert 'swiftdiff_errors_total{kind="access_log_unavailable"} 1.0' in text
    assert 'status="200"' not in text


def test_a_server_whose_system_cannot_be_brought_back_ends(start: Start, system: StepSystem) -> None:
    running = start()

    def fail() -> None:
        raise RuntimeError("the weights are gone")

    system.finish = fail  # type: ignore[method-assign]
    assert running.post().status_code == 200  # its picture was right
    until(lambda: running.server.worker.state == "failed")
    with pytest.raises((httpx.HTTPError, AssertionError)):
        assert running.client.get("/health").status_code == 200


def test_a_damaged_adapter_is_named_without_its_place(start: Start, system: StepSystem) -> None:
    def fail(request: ImageRequest, images_root: Path) -> Served:
        raise AdapterError("LoRA 'neon' is damaged: it is truncated in /secret/loras")

    system.serve = fail  # type: ignore[method-assign]
    answer = start().post(loras=[{"id": "gold"}, {"id": "neon"}])
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "adapter 'neon' is damaged or does not fit the model"


def test_errors_of_the_system_are_told_without_paths(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start()
    for prompt, status in (("nan", 422), ("bug", 500)):
        answer = running.post(prompt)
        assert answer.status_code == status
        assert "/" not in answer.json()["error"]["message"]
    records = running.records()
    assert [record["record"]["error_kind"] for record in records] == ["RequestError", "ZeroDivisionError"]
    assert caplog.messages[0].count("request img-") == 1  # the log names it once
    assert json.loads(running.client.get("/v1/adapters").text)["loras"][0]["id"] == "gold"
