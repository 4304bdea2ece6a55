"""``swiftdiff models evaluate`` on random weights: it runs, reports, and says which aims are missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from swiftdiff.cli.models_evaluate import evaluate
from swiftdiff.errors import ConfigError, ModelError

APP = typer.Typer()
APP.command()(evaluate)
SMALL = ["--prompts", "3", "--steps", "1", "--batch-size", "4"]


@pytest.fixture(scope="module")
def evaluated(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The folder, exit status and standard output of an evaluation with JSON."""
    out = tmp_path_factory.mktemp("evaluation")
    result = CliRunner().invoke(APP, [str(tiny_family), *SMALL, "--out", str(out), "--json"])
    return out, result.exit_code, result.stdout


def test_random_weights_miss_the_aims_and_exit_1(evaluated: tuple[Path, int, str]) -> None:
    out, status, text = evaluated
    assert status == 1
    found = json.loads(text)
    assert found["complete"]
    assert found == json.loads((out / "evaluation.json").read_text())
    assert not next(aim for aim in found["aims"] if aim["metric"] == "base.shape")["met"]


def test_every_adapter_with_a_measure_is_drawn(evaluated: tuple[Path, int, str]) -> None:
    metrics = json.loads(evaluated[2])["metrics"]
    drawn = {name.rpartition(".")[0] for name in metrics if name.endswith((".adherence", ".recognised"))}
    assert {"controlnet.edges", "controlnet.depth", "controlnet.layout", "lora.neon", "lora.gold"} == drawn


def test_a_card_and_contact_sheets_are_written(evaluated: tuple[Path, int, str]) -> None:
    out = evaluated[0]
    card = (out / "MODEL_CARD.md").read_text()
    assert "| base | colour |" in card
    assert "swiftdiff models evaluate" in card
    assert {path.name for path in out.glob("contact-*.png")} == {
        "contact-base.png",
        "contact-controlnets.png",
        "contact-loras.png",
    }


def test_a_second_run_draws_nothing_and_fits_eighty_columns(
    evaluated: tuple[Path, int, str], tiny_family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftdiff.models.loading.load_pipeline", _refuse)
    arguments = [str(tiny_family), *SMALL, "--out", str(evaluated[0]), "--part", "base"]
    result = CliRunner().invoke(APP, arguments, env={"COLUMNS": "80", "TERM": "dumb"})
    assert result.exit_code == 1
    assert "missed: base.shape" in result.stderr
    assert "missed: lora" not in result.stderr
    table = [line for line in result.stdout.splitlines() if "│" in line or "┃" in line]
    assert len(table) > 10
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(line for line in table if "without" not in line)


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("the model was loaded although every picture is there")


def test_a_part_that_does_not_exist_is_named() -> None:
    result = CliRunner().invoke(APP, ["--part", "poses"])
    assert isinstance(result.exception, ConfigError)
    assert "base, controlnets, loras" in str(result.exception)


def test_a_preset_cannot_be_evaluated() -> None:
    result = CliRunner().invoke(APP, ["sdxl-thin", *SMALL])
    assert isinstance(result.exception, ModelError)
    assert "family folder" in str(result.exception)


def test_the_help_states_the_exit_status_and_the_aims() -> None:
    text = CliRunner().invoke(APP, ["--help"]).stdout
    assert "Exit status" in text
    assert "edge F1 0.80" in " ".join(text.split())
