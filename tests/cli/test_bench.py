from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_fakes import FakeBuild

from swiftdiff.bench import session
from swiftdiff.bench.lineup import usable_cores
from swiftdiff.cli import main
from swiftdiff.engine.measuring import MeasuringObserver

TINY = (
    "--model",
    "shapes",
    "--setting",
    "0C/1L",
    "--view",
    "same-hardware",
    "--repeats",
    "2",
    "--steps",
    "2",
)


@pytest.fixture(autouse=True)
def _fake_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    core = usable_cores()[0]
    monkeypatch.setattr(session, "usable_cores", lambda: (core,))
    monkeypatch.setattr(session, "build_system", FakeBuild())
    monkeypatch.setattr(session, "load_1min", lambda: 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["bench", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_the_tables_are_shown_and_on_disk_and_fit_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, "--systems", "swiftdiff, swiftdiff+bal40") == 0
    out = capsys.readouterr().out
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("bench-")
    names = ("speed", "stages", "one-lora", "pictures", "memory")
    assert {path.name for path in (folder / "tables").iterdir()} == {
        f"shapes-same-hardware-{name}.csv" for name in names
    }
    report = (folder / "report.md").read_text()
    for text in ("0C/1L stock", "0C/1L swiftdiff+bal40", "approximate", "× stock", "2 repeats"):
        assert text in out
        assert text in report
    for text in ("Machine: ", "torch ", "Command: ", "load average", "Emulated: "):
        assert text in report
    assert f"results/{folder.name}/report.md" in out
    lines = [line for line in out.splitlines() if "results/" not in line]
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_json_is_the_summary_and_nothing_else_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, "--systems", "swiftdiff", "--out", "b", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "b/summary.json").read_text())
    assert summary["complete"]
    (stage,) = summary["stages"]
    assert [(each["setting"], each["system"]) for each in stage["results"]] == [
        ("0C/1L", "stock"),
        ("0C/1L", "swiftdiff"),
    ]
    assert stage["results"][1]["speedup"]["count"] == 2
    assert stage["results"][1]["max_pixel_difference"] == 0


def test_what_fails_is_told_and_the_exit_code_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "build_system", FakeBuild(cannot_start=("swiftdiff",)))
    assert run(*TINY, "--systems", "swiftdiff", "--out", "b") == 1
    out, err = capsys.readouterr()
    assert "FAILED: shapes, same-hardware, 0C/1L swiftdiff" in " ".join(out.split())
    assert "swiftdiff cannot start: the model is not there" in " ".join(err.split())
    assert "0C/1L stock" in out


def test_ctrl_c_writes_down_what_was_measured_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from swiftdiff.cli.measuring import MeasuringProgress

    def interrupt(self: MeasuringObserver, done: int, total: int, left_s: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MeasuringProgress, "progressed", interrupt)
        assert run(*TINY, "--systems", "swiftdiff", "--out", "b") == 130
    out = capsys.readouterr().out
    assert "INCOMPLETE" in out
    assert "swiftdiff bench --resume b" in out
    assert json.loads((tmp_path / "b/summary.json").read_text())["complete"] is False
    assert run("--resume", "b") == 0
    assert "INCOMPLETE" not in capsys.readouterr().out
    assert json.loads((tmp_path / "b/summary.json").read_text())["num_measured"] == 4


def test_a_busy_machine_is_warned_of_at_once_and_in_every_title(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "load_1min", lambda: 3.2)
    assert run(*TINY, "--systems", "swiftdiff") == 0
    out, err = capsys.readouterr()
    assert "WARNING: the machine is not idle: its load average is 3.20" in " ".join(err.split())
    titles = " ".join(out.split()).split("shapes, same hardware: ")[1:]
    assert titles
    assert all("MACHINE NOT IDLE" in title[:60] for title in titles)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--setting", "1C1L"), "--setting is '1C1L', but must be numbers of ControlNets and LoRAs"),
        (("--setting", "4C/0L"), "--setting is '4C/0L'"),
        (("--systems", "swiftdif"), "unknown system 'swiftdif'; did you mean 'swiftdiff'"),
        (("--model", "shape"), "did you mean shapes"),
        (("--view", "one-core"), "two cores"),
        (("--out", "taken"), "--out taken is not empty"),
        (("--resume", "taken"), "taken is no benchmark's folder"),
        (("--resume", "taken", "--steps", "3"), "--resume goes on as the benchmark began"),
        (("--resume", "taken", "--view", "one-core"), "--resume goes on as the benchmark began"),
        (("--repeats", "0"), "--repeats"),
        (("--view", "two-core"), "--view"),
    ],
)
def test_mistakes_are_one_clear_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    defaults = () if "--resume" in arguments or "--view" in arguments else ("--view", "same-hardware")
    assert run(*arguments, *defaults) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "results").exists()
