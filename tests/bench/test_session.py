from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_fakes import FakeBuild, small_options
from patience import until

from swiftdiff.bench import session
from swiftdiff.bench.estimate import Estimate
from swiftdiff.bench.lineup import usable_cores
from swiftdiff.bench.report import write_bench_report
from swiftdiff.bench.session import BenchEnd, resume_bench, start_bench
from swiftdiff.bench.settings import AdapterSetting
from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.request import ImageRequest

CORE = usable_cores()[0]


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "usable_cores", lambda: (CORE,))


def _start(
    out: Path, build: FakeBuild, observer: MeasuringObserver | None = None, **fields: object
) -> BenchEnd:
    return start_bench(small_options(**fields), out, argv=["bench"], observer=observer, build=build)


def _measured(ended: BenchEnd) -> list[tuple[str, str, int]]:
    return [
        (each.setting, each.system, each.repeat)
        for each in ended.folder.read_measurements()
        if each.purpose == "measure"
    ]


class _InterruptAfter(MeasuringObserver):
    """Presses Ctrl-C once so much is done."""

    def __init__(self, count: int) -> None:
        self._count = count

    def progressed(self, done: int, total: int, left_s: float) -> None:
        if done == self._count:
            raise KeyboardInterrupt


def test_systems_take_turns_at_the_same_requests_in_processes_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = _start(tmp_path / "out", FakeBuild(log=log))
    assert ended.outcome == "complete"
    served = [line.split(" ", 3) for line in log.read_text().splitlines()]
    requests = {name: [line[3] for line in served if line[0] == name] for name in ("stock", "swiftdiff")}
    assert sorted(requests["stock"]) == sorted(requests["swiftdiff"])
    assert len({line[2] for line in served}) == 2
    assert _measured(ended) == [
        ("0C/0L", "stock", 0),
        ("0C/0L", "swiftdiff", 0),
        ("1C/1L", "swiftdiff", 0),
        ("1C/1L", "stock", 0),
        ("0C/0L", "swiftdiff", 1),
        ("0C/0L", "stock", 1),
        ("1C/1L", "swiftdiff", 1),
        ("1C/1L", "stock", 1),
    ]


def test_each_system_warms_up_in_each_setting_with_few_steps_and_that_is_not_counted(tmp_path: Path) -> None:
    ended = _start(tmp_path / "out", FakeBuild(log=tmp_path / "log"), warmups=2, steps=20)
    lines = [line.split(" ", 3)[3] for line in (tmp_path / "log").read_text().splitlines()]
    warm, counted = lines[:8], lines[8:]
    assert {ImageRequest.model_validate_json(line).num_inference_steps for line in warm} == {3}
    assert {ImageRequest.model_validate_json(line).num_inference_steps for line in counted} == {20}
    result = write_bench_report(ended.folder, complete=True)
    assert result.num_measured == 8


def test_a_measurement_has_all_that_is_needed_to_judge_it(tmp_path: Path) -> None:
    ended = _start(tmp_path / "out", FakeBuild())
    each = ended.folder.read_measurements()[-1]
    assert each.latency_s is not None
    assert each.latency_s > 0
    assert sum(each.stages.values()) == pytest.approx(each.latency_s)
    assert each.total_s is not None
    assert each.device_seconds == pytest.approx(each.total_s)
    assert (each.bytes_loaded, each.cores, each.exactness) == (10, (CORE,), "exact")
    assert each.peak_host_bytes > 1 << 20
    assert each.picture is not None
    assert (ended.folder.path / each.picture).is_file()
    environment = json.loads((ended.folder.path / "environment.json").read_text())
    assert environment["command"] == ["bench"]


@pytest.mark.parametrize(
    ("build", "reason", "ok"),
    [
        (FakeBuild(cannot_start=("swiftdiff",)), "swiftdiff cannot start: the model is not there", 0),
        (FakeBuild(fails=("swiftdiff",)), "the file is truncated", 2),
        (FakeBuild(dies=("swiftdiff",)), "the process of swiftdiff ended by signal 9", 0),
        (FakeBuild(cannot_restore=("swiftdiff",)), "cannot restore the model: RuntimeError", 0),
    ],
)
def test_what_happens_to_one_system_is_recorded_and_the_other_goes_on(
    tmp_path: Path, build: FakeBuild, reason: str, ok: int
) -> None:
    ended = _start(tmp_path / "out", build)
    assert ended.outcome == "complete"
    measured = [each for each in ended.folder.read_measurements() if each.purpose == "measure"]
    assert len(measured) == 8
    errors = [each.error for each in measured if each.system == "swiftdiff" and each.error is not None]
    assert len(errors) == 4 - ok
    assert all(reason in error for error in errors)
    assert all(each.error is None for each in measured if each.system == "stock")
    result = write_bench_report(ended.folder, complete=True)
    assert any(reason in failure for failure in result.failures)
    assert reason in (ended.folder.path / "report.md").read_text()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_interrupted_benchmark_goes_on_with_the_round_that_was_cut_off(tmp_path: Path, count: int) -> None:
    ended = _start(tmp_path / "out", FakeBuild(), _InterruptAfter(count))
    assert ended.outcome == "interrupted"
    assert len(_measured(ended)) == count
    result = write_bench_report(ended.folder, complete=False)
    assert result.to_json()["complete"] is False
    kept = {each.started_at for each in ended.folder.read_measurements() if each.purpose == "measure"}
    ended = resume_bench(ended.folder.path, build=FakeBuild())
    assert ended.outcome == "complete"
    assert len(_measured(ended)) == 8
    now = {each.started_at for each in ended.folder.read_measurements() if each.purpose == "measure"}
    assert len(now & kept) == count - count % 2  # a pair from two sessions would be no pair
    environment = json.loads((ended.folder.path / "environment.json").read_text())
    assert len(environment["sessions"]) == 2


def test_a_complete_benchmark_is_not_measured_again(tmp_path: Path) -> None:
    ended = _start(tmp_path / "out", FakeBuild())
    before = ended.folder.raw_path.read_bytes()
    assert resume_bench(ended.folder.path, build=FakeBuild()).outcome == "complete"
    assert ended.folder.raw_path.read_bytes() == before


def test_ctrl_c_does_not_wait_for_the_system_that_computes(tmp_path: Path) -> None:
    import os
    import signal
    import threading

    log = tmp_path / "log"

    def press_when_it_computes() -> None:
        until(log.exists)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press_when_it_computes)
    presser.start()
    ended = _start(tmp_path / "out", FakeBuild(slow=("stock", "swiftdiff"), log=log))
    presser.join()
    assert ended.outcome == "interrupted"
    left = {each.purpose for each in ended.folder.read_measurements()}
    assert left <= {"start"}  # the slow one would have left a record of its request


def test_stocks_thread_count_is_tried_out_first_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "usable_cores", lambda: (CORE, CORE))
    log = tmp_path / "log"
    ended = _start(tmp_path / "out", FakeBuild(log=log), _InterruptAfter(1), settings=("1C/1L", "2C/2L"))
    tried = [each for each in ended.folder.read_measurements() if each.purpose == "threads"]
    assert {each.system for each in tried} == {"stock@1", "stock@2"}
    assert {each.setting for each in tried} == {"1C/0L", "2C/0L"}
    warm = {
        (each.system, each.setting) for each in ended.folder.read_measurements() if each.purpose == "warmup"
    }
    assert {(each.system, each.setting) for each in tried} <= warm
    threads = {line.split(" ")[1] for line in log.read_text().splitlines()}
    assert {"1", "2"} <= threads
    ended = resume_bench(ended.folder.path, build=FakeBuild())
    again = [each for each in ended.folder.read_measurements() if each.purpose == "threads"]
    assert again == tried
    (stage,) = write_bench_report(ended.folder, complete=True).stages
    assert stage.stock_threads == min(stage.thread_seconds, key=lambda count: stage.thread_seconds[count])


def test_the_time_left_follows_what_was_measured() -> None:
    estimate = Estimate(steps=20)
    cells = [("shapes", "same-hardware", AdapterSetting(0, 0), name) for name in ("stock", "swiftdiff")]
    guess_s = estimate.total_s(cells)
    assert estimate.total_s(cells, startups=1) > guess_s > 0
    estimate.learn(cells[0], 100.0)
    assert estimate.total_s(cells[:1]) == 100.0
    assert estimate.total_s(cells[1:]) > 10 * guess_s / 2  # a machine that is slower is slower for all
