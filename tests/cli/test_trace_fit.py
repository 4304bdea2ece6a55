from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.cli import main


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_a_trace_becomes_a_spec_that_makes_more_like_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "bursty", "-o", "seen.jsonl", "-n", "200") == 0
    assert run("fit", "seen.jsonl", "-o", "like.toml") == 0
    captured = capsys.readouterr()
    assert "like.toml: fitted to 200 requests" in captured.out
    assert max(map(len, captured.out.splitlines())) <= 80
    assert run("generate", "like.toml", "-o", "made.jsonl", "-n", "50") == 0
    assert not list(Path().glob("*.csv"))


def test_the_same_source_gives_the_same_spec() -> None:
    assert run("generate", "steady", "-o", "seen.jsonl", "-n", "100") == 0
    for name in ("a.toml", "b.toml"):
        assert run("fit", "seen.jsonl", "-o", name) == 0
    assert Path("a.toml").read_bytes() == Path("b.toml").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.jsonl", "-o", "s.toml"], "cannot read trace none.jsonl"),
        (["empty.jsonl", "-o", "s.toml"], "empty.jsonl: 0 requests are too few for a fit"),
        (["wrong.jsonl", "-o", "s.toml"], "wrong.jsonl:1: "),
        (["empty", "-o", "s.toml"], "empty: there must be one file data_trace_processed*.csv*"),
        (["empty.jsonl", "-o", "s.jsonl"], "-o is 's.jsonl', but must be a name that ends in .toml"),
        (["empty.jsonl", "-o", "taken.toml"], "taken.toml exists; choose another -o or use --force"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.jsonl").write_text("")
    Path("wrong.jsonl").write_text("{}\n")
    Path("taken.toml").write_text("mine")
    Path("empty").mkdir()
    before = sorted(Path().iterdir())
    assert run("fit", *arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert sorted(Path().iterdir()) == before
