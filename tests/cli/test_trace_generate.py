from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.cli import main
from swiftdiff.trace import read_provenance, read_trace, scan_trace
from swiftdiff.trace.synthesis.spec import shipped_specs


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(["trace", "generate", *map(str, arguments)])
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_shipped_specs_give_whole_traces_with_their_control_images(name: str) -> None:
    assert run(name, "-o", "out/t.jsonl", "-n", "40") == 0
    assert scan_trace("out/t.jsonl").num_requests == 40
    for request in read_trace("out/t.jsonl"):
        for use in request.controlnets:
            assert (Path("out") / use.image).is_file()


def test_the_same_spec_and_seed_give_the_same_bytes() -> None:
    for name in ("a.jsonl", "b.jsonl"):
        assert run("bursty", "-o", name, "-n", "100", "--seed", "5", "--force") == 0
    controls = (Path("a.jsonl").read_text().replace("a-controls", ""), Path("b.jsonl").read_text())
    assert controls[0] == controls[1].replace("b-controls", "")
    assert run("bursty", "-o", "c.jsonl", "-n", "100", "--seed", "6") == 0
    assert Path("c.jsonl").read_text().replace("c-controls", "") != controls[0]


def test_a_trace_says_where_it_comes_from() -> None:
    assert run("steady", "-o", "t.jsonl.gz", "-n", "3", "--seed", "5") == 0
    provenance = read_provenance(Path("t.jsonl.gz"))
    assert provenance is not None
    assert (provenance.command, provenance.seed, provenance.options) == ("trace generate", 5, {"requests": 3})
    assert [source.name for source in provenance.sources] == ["steady.toml"]


def test_a_duration_ends_the_trace() -> None:
    assert run("steady", "-o", "t.jsonl", "--duration", "60") == 0
    arrivals = [request.timestamp for request in read_trace("t.jsonl")]
    assert 30_000 < arrivals[-1] < 60_000


def test_prompts_come_from_a_file_beside_the_spec(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "prompts.txt").write_text("a cat\n\na dog\n")
    spec = '[prompts]\nfile = "prompts.txt"\n[arrivals.poisson]\nrate_per_s = 1.0\n'
    (folder / "mine.toml").write_text(spec)
    assert run(folder / "mine.toml", "-o", "t.jsonl", "-n", "30") == 0
    assert {request.prompt for request in read_trace("t.jsonl")} == {"a cat", "a dog"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["stedy"], "no spec 'stedy': name a TOML file or one of bursty"),
        (["none.toml"], "cannot read spec none.toml: No such file"),
        (["steady", "-n", "0"], "--requests is 0, but must be at least 1"),
        (["steady", "-n", "5", "--duration", "5"], "--requests and --duration are both given"),
        (["steady", "--duration", "nan"], "--duration is nan, but must be a number of seconds above 0"),
        (["steady", "--duration", "0.001"], "--duration is 0.001, but must be above"),
        (["steady", "--seed", "-1"], "--seed is -1, but must be an integer from 0"),
        (["steady", "-o", "taken.jsonl"], "taken.jsonl exists; choose another -o or use --force"),
        (["steady", "-o", "file/t.jsonl"], "cannot write trace file/t.jsonl"),
        (["prompts.toml"], "gone.txt"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken.jsonl").write_text("mine")
    Path("file").write_text("")
    Path("prompts.toml").write_text('[prompts]\nfile = "gone.txt"\n[arrivals.poisson]\nrate_per_s = 1.0\n')
    before = sorted(Path().rglob("*"))
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
    assert Path("taken.jsonl").read_text() == "mine"


def test_ctrl_c_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from swiftdiff.trace.content import ContentPool

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContentPool, "write_images", interrupt)
    assert run("steady", "-n", "50") == 130
    assert "no trace is written" in capsys.readouterr().err
    assert list(Path().iterdir()) == []
