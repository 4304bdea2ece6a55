"""What recording costs is measured in pairs, in alternating order, with the writing counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeSystem, make_request, write_requests

from swiftdiff.bench.timeline_overhead import main, measure_overhead
from swiftdiff.engine.clock import FakeClock
from swiftdiff.request import ImageRequest
from swiftdiff.systems import ENGINES
from swiftdiff.systems.base import Served


class SlowedSystem(FakeSystem):
    """Takes 2 % longer when it records, and notes in which order it was asked."""

    def serve(self, request: ImageRequest, images_root: Path) -> Served:
        self.service_s = 1.02 if self.timeline.enabled else 1.0
        self.order.append((request.request_id, self.timeline.enabled))
        return super().serve(request, images_root)

    order: list[tuple[str, bool]]


def test_recording_that_costs_two_percent_is_measured_as_that(tmp_path: Path) -> None:
    clock = FakeClock()
    system = SlowedSystem(clock)
    system.order = []
    requests = [make_request("a"), make_request("b"), make_request("c")]
    overhead = measure_overhead(system, requests, tmp_path, 4, tmp_path, clock=clock.now)
    assert overhead.ratio.value == pytest.approx(1.02)
    assert overhead.median_ratio == pytest.approx(1.02)
    assert overhead.plain_s == pytest.approx(1.0)
    assert overhead.ratio.count == 12
    assert overhead.spans_a_request == 1
    assert 0 < overhead.computed_share < 0.01
    measured = system.order[len(requests) :]
    assert len(measured) == 24
    first, second = measured[::2], measured[1::2]
    assert [name for name, _ in first] == [name for name, _ in second] == ["a", "b", "c"] * 4
    assert [recorded for _, recorded in first] == [True, False] * 6
    assert [recorded for _, recorded in second] == [False, True] * 6
    assert not system.timeline.enabled


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "diffusers", lambda config: FakeSystem(service_s=0.001))


@pytest.mark.usefixtures("fake_engine")
def test_the_command_prints_sentences_and_ends_with_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("a"), make_request("b")])
    config = tmp_path / "fake.toml"
    config.write_text('name = "fake"\nengine = "diffusers"\nmodel = "shapes"\n')
    arguments = ["--config", str(config), "--trace", str(trace), "--repeats", "2"]
    assert main([*arguments, "--out", str(tmp_path / "numbers.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Recording costs ")
    numbers = json.loads(lines[-1])
    assert numbers["ratio"]["count"] == 4
    assert numbers == json.loads((tmp_path / "numbers.json").read_text())


@pytest.mark.usefixtures("fake_engine")
@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [("--repeats", "0", "--repeats"), ("--limit", "-1", "--limit"), ("--config", "gone.toml", "gone.toml")],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, complaint: str
) -> None:
    trace = write_requests(tmp_path / "trace.jsonl", [make_request("a")])
    assert main(["--trace", str(trace), option, value]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
