"""Tests of the commands ``swiftdiff models``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swiftdiff.cli.main import app
from swiftdiff.errors import StorageError

RUNNER = CliRunner()


def test_the_list_names_every_model_and_fits_80_columns() -> None:
    result = RUNNER.invoke(app, ["models", "list"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    for text in ("shapes", "sdxl-thin", "28.8 M", "256×256", "3,468.8 M", "1024×1024", "8 LoRAs"):
        assert text in result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80


def test_the_list_as_json_has_exact_numbers() -> None:
    result = RUNNER.invoke(app, ["models", "list", "--json"])
    models = {model["name"]: model for model in json.loads(result.output)}
    assert set(models) == {"shapes", "sdxl-thin", "sdxl"}
    assert models["sdxl"]["parameters"] == 3_468_837_867
    assert models["sdxl-thin"]["controlnets"] == ["depth", "edges", "layout"]


def test_building_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(StorageError, match="not an empty folder"):
        RUNNER.invoke(app, ["models", "build", "sdxl-thin", str(tmp_path)], catch_exceptions=False)
