"""Tests of sessions on GPUs that are not there: processes, records, resuming and minutes are real."""

from __future__ import annotations

import dataclasses
import json
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from bench_fakes import FakeBuild
from gpu_bench_fakes import fake_seams, small_gpu_options
from patience import until

from swiftdiff.bench.gpu_session import GpuBenchEnd, Seams, resume_gpu_bench, start_gpu_bench
from swiftdiff.bench.worker import Worker
from swiftdiff.engine.measuring import MeasuringObserver
from swiftdiff.errors import ConfigError, StorageError


class Listener(MeasuringObserver):
    """Keeps what it is told, and presses Ctrl-C once so much is done."""

    def __init__(self, interrupt_at: int = -1) -> None:
        self.notes: list[str] = []
        self._interrupt_at = interrupt_at

    def noted(self, message: str) -> None:
        self.notes.append(message)

    def progressed(self, done: int, total: int, left_s: float) -> None:
        if done == self._interrupt_at:
            raise KeyboardInterrupt


def start(
    out: Path, seams: Seams, observer: MeasuringObserver | None = None, **fields: object
) -> GpuBenchEnd:
    return start_gpu_bench(
        small_gpu_options(**fields), out, argv=["bench-gpu"], observer=observer, seams=seams
    )


def measured(ended: GpuBenchEnd) -> list[tuple[str, str, int]]:
    records = ended.folder.read_measurements()
    return [(each.setting, each.system, each.repeat) for each in records if each.purpose == "measure"]


ALL = [
    ("0C/0L", "stock", 0),
    ("0C/0L", "swiftdiff", 0),
    ("1C/1L", "swiftdiff", 0),
    ("1C/1L", "stock", 0),
    ("0C/0L", "swiftdiff", 1),
    ("0C/0L", "stock", 1),
    ("1C/1L", "swiftdiff", 1),
    ("1C/1L", "stock", 1),
    ("0C/0L", "all-off", 0),
    ("1C/1L", "all-off", 0),
    ("0C/0L", "all-off", 1),
    ("1C/1L", "all-off", 1),
]


def test_the_pair_takes_turns_and_then_every_other_system_has_the_gpu_alone(tmp_path: Path) -> None:
    log, listener = tmp_path / "log", Listener()
    ended = start(tmp_path / "out", fake_seams(FakeBuild(log=log)), listener)
    assert (ended.outcome, ended.cut) == ("complete", "")
    assert measured(ended) == ALL
    served = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert len({line[2] for line in served}) == 3  # a process each
    names = [line[0] for line in served]
    assert names.index("all-off") > max(i for i, name in enumerate(names) if name != "all-off")
    records = ended.folder.read_measurements()
    assert [each.system for each in records if each.purpose == "start"] == ["stock", "swiftdiff", "all-off"]
    assert all(set(each.stages) == {"build", "warm_up"} for each in records if each.purpose == "start")
    assert len([each for each in records if each.purpose == "warmup"]) == 3 * 2
    assert all(each.device_seconds == each.total_s for each in records if each.purpose == "measure")
    assert listener.notes[-1] == "all of it fits into 8 minutes"
    environment = json.loads((ended.folder.path / "environment.json").read_text())
    (session,) = environment["sessions"]
    assert session["ceiling"]["tflops"] == session["ceiling_after"]["tflops"] == 800
    assert json.loads((ended.folder.path / "work.json").read_text())["unet_step"] == 13.5


def test_what_does_not_fit_is_said_and_measured_when_the_benchmark_is_resumed(tmp_path: Path) -> None:
    listener = Listener()
    # The clock is read before every warm-up and round: at 6 s a look, one repeat is all there is time for.
    ended = start(tmp_path / "out", fake_seams(seconds_a_look=6.0), listener, minutes=1.65)
    assert ended.outcome == "cut"
    kept = measured(ended)
    assert kept
    assert kept == ALL[: len(kept)]
    assert len(kept) < len(ALL)
    assert "lack" in ended.cut
    ended = resume_gpu_bench(ended.folder.path, seams=fake_seams())
    assert ended.outcome == "complete"
    assert sorted(measured(ended)) == sorted(ALL)
    environment = json.loads((ended.folder.path / "environment.json").read_text())
    assert len(environment["sessions"]) == 2
    before = ended.folder.raw_path.read_bytes()
    assert resume_gpu_bench(ended.folder.path, seams=fake_seams()).outcome == "complete"
    assert ended.folder.raw_path.read_bytes() == before


def test_an_interrupted_session_goes_on_with_the_setting_that_was_cut_off(tmp_path: Path) -> None:
    ended = start(tmp_path / "out", fake_seams(), Listener(interrupt_at=1), systems=("swiftdiff",))
    assert ended.outcome == "interrupted"
    assert measured(ended) == ALL[:2]
    half = (
        ended.folder.raw_path.read_bytes() + b'{"purpose": "measure", "model'
    )  # as a killed process leaves it
    ended.folder.raw_path.write_bytes(half)
    ended = resume_gpu_bench(ended.folder.path, seams=fake_seams())
    assert ended.outcome == "complete"
    assert sorted(measured(ended)) == sorted(each for each in ALL if each[1] != "all-off")


@dataclasses.dataclass(frozen=True)
class CountedPreload:
    log: Path

    def __call__(self) -> None:
        with self.log.open("a") as log:
            log.write("1")


def test_a_resumed_session_starts_only_what_is_left_to_measure(tmp_path: Path) -> None:
    ended = start(tmp_path / "out", fake_seams(), repeats=1, systems=("swiftdiff", "all-off"))
    everything, raw = sorted(measured(ended)), ended.folder.raw_path
    kept = [line for line in raw.read_text().splitlines(keepends=True) if '"all-off"' not in line]
    raw.write_text("".join(kept))
    preload = CountedPreload(tmp_path / "log")
    resumed = resume_gpu_bench(ended.folder.path, seams=dataclasses.replace(fake_seams(), preload=preload))
    assert resumed.outcome == "complete"
    assert sorted(measured(resumed)) == everything
    assert preload.log.read_text() == "1"


@pytest.mark.parametrize("misbehaves", ["cannot_start", "dies"])
def test_a_system_that_is_lost_is_recorded_as_failed_and_the_others_are_measured(
    tmp_path: Path, misbehaves: str
) -> None:
    build = dataclasses.replace(FakeBuild(), **{misbehaves: ("swiftdiff",)})
    ended = start(tmp_path / "out", fake_seams(build), repeats=1, systems=("swiftdiff",))
    assert ended.outcome == "complete"
    failed = {
        each.system: each.error
        for each in ended.folder.read_measurements()
        if each.error and each.repeat == 0
    }
    assert set(failed) == {"swiftdiff"}
    assert len(measured(ended)) == 4


def test_a_system_that_hangs_says_where_and_is_ended_and_the_others_are_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, receive = tmp_path / "log", Worker._receive

    def impatient(worker: Worker, patience_s: float | None = None) -> object:
        """Lose patience when the system serves, not after a time in which a slow machine comes to nothing."""

        def hangs() -> bool:
            return worker.contender.name == "swiftdiff" and log.exists() and "swiftdiff " in log.read_text()

        until(lambda: hangs() or wait([worker._connection, worker._process.sentinel], 0))
        return receive(worker, 0.0 if hangs() else None)

    monkeypatch.setattr(Worker, "_receive", impatient)
    seams = dataclasses.replace(fake_seams(FakeBuild(slow=("swiftdiff",), log=log)), patience_s=3.0)
    ended = start(tmp_path / "out", seams, repeats=1, systems=("swiftdiff",), settings=("0C/0L",))
    assert ended.outcome == "complete"
    errors = {each.system: each.error for each in ended.folder.read_measurements() if each.error}
    assert errors == {"swiftdiff": "swiftdiff did not answer within 3 s and was ended"}
    assert "in serve" in capfd.readouterr().err


def test_without_a_gpu_only_a_dry_run_starts_and_it_asks_for_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a CUDA GPU.*--dry-run"):
        start(tmp_path / "out", fake_seams(num_gpus=0))
    assert not (tmp_path / "out").exists()
    ended = start(tmp_path / "dry", fake_seams(num_gpus=0), dry_run=True, repeats=1, systems=("swiftdiff",))
    assert ended.outcome == "complete"


def test_a_folder_of_another_kind_of_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    with pytest.raises(StorageError, match=r"it has no bench-gpu\.json"):
        resume_gpu_bench(tmp_path, seams=fake_seams())
