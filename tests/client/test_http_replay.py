from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_image_server import PLAIN, Answer, FakeImageServer, pictures, png, serving
from fakes import make_request, read_lines, write_requests
from patience import PATIENCE_S
from PIL import Image

from swiftdiff.client.session import resume_http_run, start_http_run
from swiftdiff.engine.options import ClosedLoad, RateLoad, ReplayOptions
from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.engine.session import Ended, SessionObserver
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.report.run_report import write_report
from swiftdiff.request import ControlNetUse, LoraUse, RequestRecord


def replay(server: FakeImageServer, trace: Path, out: Path, **options: Any) -> Ended:
    return start_http_run(
        trace,
        server.url,
        ReplayOptions(**options),
        out,
        model=None,
        api_key=None,
        argv=["swiftdiff"],
        observer=SessionObserver(),
    )


def records(ended: Ended) -> list[RequestRecord]:
    return sorted(ended.folder.read_records(), key=lambda record: record.request_id)


def test_requests_go_out_with_all_that_the_trace_says(tmp_path: Path) -> None:
    (tmp_path / "controls").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "controls" / "a.png")
    request = make_request(
        "a",
        negative_prompt="blue",
        width=128,
        height=64,
        num_inference_steps=7,
        guidance_scale=2.5,
        num_images=2,
        seed=5,
        controlnets=(ControlNetUse(id="edges", image="controls/a.png", scale=0.5, start=0.1, end=0.9),),
        loras=(LoraUse(id="neon", scale=0.8),),
        slo_ms=9000.0,
    )
    trace = write_requests(tmp_path / "trace.jsonl", [request])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run")
    (body,) = server.bodies
    image = base64.b64decode(body["controlnets"][0].pop("image"))
    assert image == (tmp_path / "controls" / "a.png").read_bytes()
    assert body == {
        "model": "shapes",
        "prompt": "a red circle",
        "n": 2,
        "size": "128x64",
        "response_format": "b64_json",
        "negative_prompt": "blue",
        "seed": 5,
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "controlnets": [{"id": "edges", "scale": 0.5, "start": 0.1, "end": 0.9}],
        "loras": [{"id": "neon", "scale": 0.8}],
        "slo_ms": 9000.0,
    }
    (record,) = records(ended)
    assert [Image.open(ended.folder.path / name).getpixel((0, 0))[0] for name in record.images] == [5, 6]
    assert (record.status, record.slo_met, record.width) == ("ok", True, 8)


def test_the_body_is_one_that_our_own_server_takes(tmp_path: Path) -> None:
    schema = pytest.importorskip("swiftdiff.server.schema")
    from swiftdiff.client.wire import encode_request

    body = encode_request(make_request("a", loras=(LoraUse(id="neon"),), width=64, height=64), tmp_path, "x")
    assert schema.GenerationRequest.model_validate_json(body).loras[0].id == "neon"


def test_latency_is_the_sum_of_its_parts_and_client_queueing_is_apart(tmp_path: Path) -> None:
    told = PLAIN | {
        "queue_wait_s": 0.004,
        "stages": {"denoise": 0.003, "other": 0.001},
        "adapters": [
            {
                "kind": "lora",
                "id": "neon",
                "source": "store",
                "bytes_loaded": 7,
                "load_s": 0.1,
                "step_patched": 3,
            }
        ],
    }
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}", 10.0 * i) for i in range(4)])
    with serving(lambda body: pictures(body, told)) as server:
        ended = replay(server, trace, tmp_path / "run")
    for record in records(ended):
        assert record.client_wait_s is not None
        assert record.queue_wait_s == pytest.approx(record.client_wait_s + 0.004)
        assert record.latency_s == pytest.approx(record.queue_wait_s + sum(record.stages.values()))
        assert record.stages["denoise"] == 0.003
        assert record.stages["http"] > -0.008  # a fake server tells times that it did not take
        assert (record.bytes_loaded, record.adapters[0].step_patched) == (7, 3)
    summary = write_report(ended.folder).summary
    assert list(summary.stages)[:2] == ["client_queue", "queue"]
    assert summary.stages["queue"].mean == pytest.approx(4.0)
    assert summary.device_seconds_per_image is None


def test_a_server_that_tells_nothing_is_measured_from_outside(tmp_path: Path) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("a")])
    with serving(pictures, models=(404, {"detail": "Not Found"})) as server:
        ended = replay(server, trace, tmp_path / "run")
    (record,) = records(ended)
    assert set(record.stages) == {"server", "image_save", "other"}
    assert record.queue_wait_s == record.client_wait_s
    assert "model" not in server.bodies[0]


def test_an_open_loop_does_not_wait_for_answers(tmp_path: Path) -> None:
    together = threading.Barrier(5, timeout=PATIENCE_S)

    def answer(body: dict[str, Any]) -> Answer:
        together.wait()  # passes only if all five are under way at once
        return pictures(body, PLAIN)

    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}", 5.0 * i) for i in range(5)])
    with serving(answer) as server:
        ended = replay(server, trace, tmp_path / "run")
    assert [record.status for record in records(ended)] == ["ok"] * 5


def test_a_closed_loop_keeps_its_number(tmp_path: Path) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}") for i in range(12)])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run", load=ClosedLoad(max_concurrency=2))
    assert server.most_under_way <= 2
    assert len(records(ended)) == 12


def test_more_than_may_be_under_way_waits_in_the_client_and_is_shown_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftdiff.client.http_replay.MAX_UNDER_WAY", 3)
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i:02}") for i in range(9)])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run", load=RateLoad(request_rate=float("inf")))
    assert server.most_under_way <= 3
    waits = [record.client_wait_s or 0.0 for record in records(ended)]
    assert max(waits[3:]) > max(waits[:3])


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (
            (429, {"error": {"message": "the queue is full", "code": "queue_full"}}),
            "HTTP 429",
            "the queue is full",
        ),
        ((422, {"detail": "no such field"}), "HTTP 422", "no such field"),
        ((500, b"<html>oops</html>"), "HTTP 500", "<html>oops</html>"),
        ((302, b""), "HTTP 302", "no reason given"),
        ((200, b"not json"), "BadAnswer", "no data[].b64_json in it: not json"),
        ((200, {"data": [{"url": "http://else.where/x.png"}]}), "BadAnswer", "no data[].b64_json"),
        ((200, {"data": [{"b64_json": "AAAA"}]}), "BadAnswer", "a picture that cannot be read"),
        ((200, {"data": [{"b64_json": "%%%"}]}), "BadAnswer", "no data[].b64_json"),
        ((200, {"data": []}), "BadAnswer", "0 pictures in place of 1"),
        ((200, {"data": [{"b64_json": png((0, 0, 0), 5000)}]}), "BadAnswer", "5000×5000"),
        ((0, b""), "RemoteProtocolError", "disconnected"),
    ],
)
def test_what_is_no_picture_fails_alone_with_the_servers_words(
    tmp_path: Path, answer: Answer, kind: str, reason: str
) -> None:
    trace = write_requests(
        tmp_path / "trace.jsonl", [make_request("bad", seed=1), make_request("good", seed=2)]
    )
    with serving(lambda body: answer if body["seed"] == 1 else pictures(body)) as server:
        bad, good = records(replay(server, trace, tmp_path / "run"))
    assert (bad.status, bad.error_kind, good.status) == ("failed", kind, "ok")
    assert reason in (bad.error or "")
    assert bad.latency_s == pytest.approx(bad.queue_wait_s + sum(bad.stages.values()))


def test_nonsense_in_what_a_server_tells_of_itself_is_not_believed(tmp_path: Path) -> None:
    told = {"queue_wait_s": -1, "stages": {"denoise": "long"}}
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("a")])
    with serving(lambda body: pictures(body, told)) as server:
        (record,) = records(replay(server, trace, tmp_path / "run"))
    assert record.status == "ok"
    assert "server" in record.stages


def test_a_request_whose_control_image_is_missing_fails_alone_and_is_not_sent(tmp_path: Path) -> None:
    bad = make_request("bad", controlnets=(ControlNetUse(id="edges", image="none.png"),))
    half = make_request("half", width=64)
    trace = write_requests(tmp_path / "trace.jsonl", [bad, half, make_request("ok")])
    with serving() as server:
        found = records(replay(server, trace, tmp_path / "run"))
    assert [(r.request_id, r.error_kind) for r in found if r.error] == [
        ("bad", "RequestError"),
        ("half", "RequestError"),
    ]
    assert len(server.bodies) == 1


def test_warmups_are_flagged_and_an_slo_for_all_is_kept(tmp_path: Path) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("a"), make_request("b")])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run", num_warmups=3, slo_ms=0.001)
    lines = read_lines(ended.folder.records_path)
    assert [line.get("warmup") for line in lines][:3] == [True] * 3
    assert [line["slo_met"] for line in lines[3:]] == [False, False]
    assert len(server.bodies) == 5


def test_resuming_sends_only_what_is_missing(tmp_path: Path) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}", 10.0 * i) for i in range(4)])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run")
        lines = ended.folder.records_path.read_text().splitlines(keepends=True)
        ended.folder.records_path.write_text("".join(lines[:2]) + lines[2][:20])
        server.bodies.clear()
        again = resume_http_run(ended.folder.path, None, api_key="secret", observer=SessionObserver())
        assert len(server.bodies) == 2
    assert server.keys[-1] == "Bearer secret"
    assert "secret" not in "".join(p.read_text() for p in (tmp_path / "run").glob("*.*"))
    assert again.outcome == "complete"
    assert len({record.request_id for record in records(again)}) == 4
    with pytest.raises(ConfigError, match="does not answer"):
        lines = ended.folder.records_path.read_text().splitlines(keepends=True)
        ended.folder.records_path.write_text("".join(lines[:2]))
        resume_http_run(ended.folder.path, None, api_key=None, observer=SessionObserver())


def test_records_that_cannot_be_written_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: RunFolder, record: RequestRecord) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(RunFolder, "append_record", full)
    trace = write_requests(tmp_path / "trace.jsonl", [make_request(f"r{i}") for i in range(3)])
    with serving() as server:
        ended = replay(server, trace, tmp_path / "run")
    assert (ended.outcome, str(ended.reason)) == ("stopped", "no space left")
