"""Tests of ``swiftdiff replay --adapters``: what is printed, and how mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeSystem, make_request, write_requests

from swiftdiff.adapters.store import UnknownAdapterError
from swiftdiff.cli import main
from swiftdiff.errors import AdapterError
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.systems import ENGINES


def _serve(request: ImageRequest) -> None:
    if request.request_id.startswith("damaged"):
        raise AdapterError("LoRA 'x' is damaged")
    if request.request_id.startswith("foreign"):
        raise UnknownAdapterError("unknown LoRA 'f'; known: gold")


@pytest.fixture(autouse=True)
def _fake_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENGINES, "diffusers", lambda config: FakeSystem(service_s=0.001, before=_serve))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["replay", *arguments])
    return int(caught.value.code or 0)


def _trace(*names: str) -> str:
    requests = [make_request(name, loras=(LoraUse(id=f"civitai:{name}"),)) for name in names]
    return str(write_requests(Path("trace.jsonl"), requests))


def test_tables_report_and_summary_say_how_ids_were_mapped(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_trace("a", "b", "c"), "--adapters", "alias", "--out", "run") == 0
    out = capsys.readouterr().out
    said = "Adapter ids mapped: alias, 3 LoRA ids each with a file of its own in a generated local store"
    assert said in " ".join(out.split())
    assert "mapping:  run/adapters.json" in out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert said in Path("run/report.md").read_text()
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["mapped_adapters"]["how"] == "alias"


def test_requests_that_name_unknown_adapters_are_answered_with_a_hint_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(_trace("foreign1", "foreign2", "a"), "--out", "run") == 1
    assert capsys.readouterr().out.count("--adapters alias") == 1


def test_other_failures_and_mapped_runs_get_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_trace("damaged", "a"), "--out", "run") == 1
    assert run(_trace("foreign", "a"), "--out", "mapped", "--adapters", "hash") == 1
    assert "--adapters alias" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("trace.jsonl", "--adapters", "alais"),
            "--adapters is 'alais', but must be alias, popularity, hash, or",
        ),
        (("trace.jsonl", "--adapters", "none.json"), "--adapters none.json cannot be read: No such file"),
        (("trace.jsonl", "--adapters", "m.json"), "m.json has no LoRA 'civitai:a' of the trace"),
        (("--resume", "run", "--adapters", "alias"), "--resume goes on as the run began"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2_and_leave_no_folder(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    _trace("a")
    Path("m.json").write_text('{"loras": {"other": "gold"}}')
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("results").exists()
