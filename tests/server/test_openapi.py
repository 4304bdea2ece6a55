"""The OpenAPI document says what the server does: schemathesis looks for where it does not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import Running, StepSystem, running, step_config

# What a JSON schema cannot say is refused with 400: a product of two sides, base64 of a picture, a list whose
# ids differ, two fields that go together. So valid bodies may be answered 400 too; 404 is an unknown adapter,
# and 504 a deadline of no time at all.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 504]
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 408, 413, 415, 422, 504]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store" / "loras").mkdir(parents=True)
        (folder / "store" / "loras" / "gold.safetensors").touch()
        system = step_config(folder / "store")
        defaults = {"num_inference_steps": 1}
        with running(folder, system, lambda config: StepSystem(), defaults=defaults, stock=False) as server:
            yield server


def test_schemathesis_finds_nothing(server: Running, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", "--max-examples", "60", "--seed", "1", "--no-color",
         "--request-timeout", "300", "--suppress-health-check", "all"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_document_shows_the_limits_and_every_refusal(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    operation = document["paths"]["/v1/images/generations"]["post"]
    assert {"200", "400", "404", "413", "415", "429", "503", "504"} <= set(operation["responses"])
    fields = document["components"]["schemas"]["GenerationRequest"]["properties"]
    assert fields["prompt"]["maxLength"] == 4000
    assert fields["n"]["anyOf"][0]["maximum"] == 8
