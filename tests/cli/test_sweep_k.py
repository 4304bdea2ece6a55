from __future__ import annotations

import json
from pathlib import Path

import pytest

from swiftdiff.adapters.bal_table import read_bal_table
from swiftdiff.cli import main
from swiftdiff.cli import sweep_k as command
from swiftdiff.compare.sweep_k_session import SweepEnd
from swiftdiff.engine.measuring import MeasuringObserver


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["sweep-k", *map(str, arguments)])
    return int(caught.value.code or 0)


def tiny(family: Path) -> list[str | Path]:
    config = family.parent / "sweep.toml"
    text = 'name = "tiny"\nengine = "swiftdiff"\nthreads = 1\n[swiftdiff]\ngraph_replay = false\n'
    config.write_text(text)
    counts = ["--steps", "3", "--prompts", "1", "--repeats", "1", "--k", "0,2"]
    return ["--config", config, "--model", family, *counts]


def test_a_sweep_shows_tables_of_80_columns_and_writes_a_table_that_a_system_reads(
    tiny_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*tiny(tiny_family), "--loras", "neon,gold", "--load-time", "5", "--out", "out") == 0
    out = capsys.readouterr().out
    for text in ("Largest k by LoRA", "Quality and latency by k", "Step at which patches landed"):
        assert text in out
    assert "out/report.md" in out
    assert max(map(len, out.splitlines())) <= 80
    assert set(read_bal_table(tmp_path / "out/bal-table.toml").loras) == {"neon", "gold"}
    assert run("--resume", "out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["complete"], summary["ks"], summary["load_time_ms"]) == (True, [0, 2], 5)


def test_a_damaged_lora_is_named_and_ends_with_1(
    tiny_family_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_family_copy / "loras/neon.safetensors").write_bytes(b"x")
    assert run(*tiny(tiny_family_copy), "--loras", "neon,gold", "--out", "out") == 1
    assert "FAILED: neon: " in capsys.readouterr().out


def test_an_interrupted_sweep_says_how_to_go_on(
    tiny_family: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*tiny(tiny_family), "--loras", "neon", "--out", "out") == 0
    resume = command._resume

    def interrupted(folder: Path, progress: MeasuringObserver) -> SweepEnd:
        return SweepEnd(resume(folder, progress).folder, "interrupted")

    monkeypatch.setattr(command, "_resume", interrupted)
    assert run("--resume", "out") == 130
    assert "INCOMPLETE. Go on with\n  swiftdiff sweep-k --resume out" in capsys.readouterr().out
    assert not Path("out/bal-table.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "0,20"], "--k is '0,20', but must be steps from 0 to 19"),
        (["--k", "0,2", "--points", "3"], "either --k or --points"),
        (["--margin", "styl=1"], "unknown measure 'styl'; did you mean 'style'?"),
        (["--load-time", "soon"], "--load-time is 'soon'"),
        (["--loras", "noen"], "unknown LoRA 'noen'; did you mean 'neon'?"),
        (["--model", "nothing"], "nothing"),
        (["--trace", "gone.jsonl"], "gone.jsonl"),
        (["--resume", "gone"], "gone is no sweep's folder"),
        (["--resume", "gone", "--steps", "4"], "beside it there can only be --json"),
        (["--config", "stock.toml"], "engine is 'diffusers', but only 'swiftdiff'"),
        (["--trace", "plain.jsonl"], "names no LoRA"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "stock.toml").write_text('name = "a"\nengine = "diffusers"\n')
    (tmp_path / "plain.jsonl").write_text('{"request_id": "a", "timestamp": 0, "prompt": ""}\n')
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()
