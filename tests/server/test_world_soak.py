"""What is told of a stream that was watched for minutes, and a short watch of a real one."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image

from swiftdiff.report.tables import to_markdown
from swiftdiff.server import world_soak
from swiftdiff.server.world_soak_report import (
    FEWEST,
    SETTLED,
    Finding,
    Sample,
    Watched,
    judge,
    soak_table,
    summary,
    write_soak,
)

ENVIRONMENT = {"cpu": "a CPU", "usable_cores": 2, "load_before": 0.0, "command": ["world_soak"]}
STEADY = Watched(
    model="bounce",
    threads=1,
    client="chromium",
    fps=8.0,
    first_picture_ms=90.0,
    samples=tuple(Sample(10.0 * at, 80 * at, 0, 500.0, 300.0, None if at == 0 else True) for at in range(20)),
    environment=ENVIRONMENT,
)


def found(watched: Watched) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(watched)}


def missed(watched: Watched) -> set[str]:
    return {finding.name for finding in judge(watched) if not finding.is_met}


def changed(at: int, **values: object) -> Watched:
    """The steady stream with other values from one sample on."""
    samples = list(STEADY.samples)
    samples[at:] = [replace(sample, **values) for sample in samples[at:]]
    return replace(STEADY, samples=tuple(samples))


def test_a_steady_stream_holds_and_its_figures_are_as_they_were() -> None:
    figures = found(STEADY)
    assert missed(STEADY) == set()
    assert figures["frames/s, median"].value == 8.0
    assert figures["frames shown"].value == 80 * 19
    assert figures["seconds watched"].value == 190.0
    assert figures["server memory, MB more a minute"].value == pytest.approx(0.0, abs=1e-9)
    assert summary(STEADY, judge(STEADY))["held"] is True


def test_a_stall_a_leak_dropped_frames_and_unseen_steering_each_show() -> None:
    stalled = [
        replace(each, frames=each.frames - (50 if at >= 12 else 0)) for at, each in enumerate(STEADY.samples)
    ]
    assert missed(replace(STEADY, samples=tuple(stalled))) == {"frames/s, slowest / median"}
    leaking = [replace(each, server_mb=500.0 + 2 * at) for at, each in enumerate(STEADY.samples)]
    figures = found(replace(STEADY, samples=tuple(leaking)))
    assert figures["server memory, MB more a minute"].value == pytest.approx(12.0)
    assert not figures["server memory, last / first"].is_met
    assert missed(changed(SETTLED, client_mb=300.0)) == set()
    assert missed(changed(15, client_mb=400.0)) == {"browser memory, last / first"}
    assert missed(changed(10, missed=30)) == {"frames dropped / shown"}
    assert missed(changed(19, steered=False)) == {"… and seen, share"}
    assert missed(replace(STEADY, fps=12.0)) == {"frames/s, median / offered"}


def test_a_stream_that_shows_nothing_does_not_hold() -> None:
    still = replace(STEADY, samples=tuple(replace(each, frames=1) for each in STEADY.samples))
    assert "frames/s, slowest / median" in missed(still)
    json.dumps(summary(still, judge(still)), allow_nan=False)


def test_what_was_seen_is_written_to_be_read_and_computed_with(tmp_path: Path) -> None:
    findings = judge(STEADY)
    write_soak(tmp_path / "out", STEADY, findings)
    with (tmp_path / "out" / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["frames"]) for row in rows] == [80.0 * at for at in range(20)]
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| frames/s, median / offered | 1 | ≥ 0.95 | yes |" in report
    assert max(len(line) for line in to_markdown(soak_table(STEADY, findings)).splitlines()[:-1]) <= 80
    with Image.open(tmp_path / "out" / "stream.png") as plot:
        assert plot.width > 500


def test_a_real_stream_is_watched_from_begin_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(world_soak, "EVERY_S", 0.4)
    options = ["--model", "bounce-random", "--minutes", "0", "--threads", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["world_soak", *options])
    assert world_soak.main() in {0, 1}  # how steady a busy machine is, this does not say
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = {finding["name"]: finding["value"] for finding in told["findings"]}
    assert figures["times steered"] == FEWEST - 1
    assert figures["frames shown"] > 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8")) == told


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "bounce-random", "--out", "."], "--out . exists; name another"),
        (["--model", "bounce-random", "--browser", "nosuchbrowser"], "--browser"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["world_soak", *options])
    assert world_soak.main() == 2
    printed = capsys.readouterr().err
    assert complaint in printed
    assert len(printed.splitlines()) == 1


class _Process:
    def __init__(self, pid: int, name: str, kind: str, rss: int) -> None:
        self.pid, self._name, self._kind, self._rss = pid, name, kind, rss

    def name(self) -> str:
        return self._name

    def cmdline(self) -> list[str]:
        return [self._name, f"--type={self._kind}"]

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=self._rss)


def test_a_service_that_the_browser_starts_later_for_itself_does_not_count_but_a_page_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = [
        _Process(1, "python", "", 900_000_000),
        _Process(2, "chromium", "renderer", 100_000_000),
        _Process(3, "chromium", "utility", 10_000_000),
    ]
    me = SimpleNamespace(children=lambda recursive: list(running))
    monkeypatch.setattr(psutil, "Process", lambda: me)
    held = world_soak._BrowserMemory()
    assert held() == 110
    running += [
        _Process(4, "chromium", "utility", 48_000_000),
        _Process(5, "chromium", "renderer", 1_000_000),
    ]
    assert held() == 111
