from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import swiftdiff
from swiftdiff.cli import main
from swiftdiff.errors import ConfigError

HEAVY = ("torch", "diffusers", "transformers", "pandas", "matplotlib", "scipy")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main.run(list(arguments))
    return int(caught.value.code or 0)


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"swiftdiff {swiftdiff.__version__}\n"


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("init", "models", "replay"))


def commands(command: click.Command, name: str = "swiftdiff") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from commands(child, f"{name} {child.name}")


def test_help_fits_80_columns_as_it_was_written_and_loses_no_brackets() -> None:
    shown = dict(commands(typer.main.get_command(main.app)))
    assert "swiftdiff trace import" in shown
    for name, command in shown.items():
        _, _, rest = (command.help or "").partition("\n\n")  # the first paragraph is wrapped anew
        assert all(len(line) <= 78 for line in rest.splitlines()), name
        texts = [command.help or "", *(getattr(option, "help", None) or "" for option in command.params)]
        for text in texts:
            assert not re.search(r"(?<!\\)\[[a-z]", text), f"{name}: rich takes this for its markup: {text}"


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, swiftdiff.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_users_mistake_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = typer.Typer()

    @broken.command()
    def fail() -> None:
        raise ConfigError("threads is 0, but must be at least 1")

    monkeypatch.setattr(main, "app", broken)
    assert run() == 2
    captured = capsys.readouterr()
    assert captured.err == "error: threads is 0, but must be at least 1\n"
    assert captured.out == ""


def test_ctrl_c_ends_with_130_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = typer.Typer()

    @interrupted.command()
    def wait() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    assert run() == 130
    assert "Traceback" not in capsys.readouterr().err


def test_init_says_what_it_wrote_and_what_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", str(tmp_path / "mine")) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "mine" / "configs" / "diffusers.toml") in out
    assert "swiftdiff replay" in out
    assert (tmp_path / "mine" / "controls" / "03-edges.png").is_file()


def test_init_refuses_to_overwrite_and_force_does_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", str(tmp_path)) == 0
    assert run("init", str(tmp_path)) == 2
    assert "would be overwritten; choose another folder or use --force" in capsys.readouterr().err
    assert run("init", str(tmp_path), "--force") == 0
