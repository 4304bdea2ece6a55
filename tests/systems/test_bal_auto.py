"""``bal_k = "auto"``: each request waits where the table of its LoRAs says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from serving import are_equal, engine, engine_config, replay, serve, with_adapters

from swiftdiff.adapters.bal_table import BalTable, TableEntry
from swiftdiff.adapters.lora_loading import sha256_of
from swiftdiff.config import parse_config
from swiftdiff.engine.session import resolve_paths
from swiftdiff.errors import AdapterError, ConfigError
from swiftdiff.models.loading import load_pipeline
from swiftdiff.models.registry import resolve_model
from swiftdiff.models.weights_digest import weights_digest
from swiftdiff.systems import build_system

NETWORKS = ("unet", "text_encoder", "text_encoder_2")


def digest_of(family: Path, dtype: Any = "float32") -> str:
    pipe = load_pipeline(resolve_model(family), device="cpu", dtype=dtype, scheduler="euler", num_threads=1)
    return weights_digest({name: getattr(pipe, name) for name in NETWORKS})


@pytest.fixture(scope="module")
def digest(tiny_family: Path) -> str:
    return digest_of(tiny_family)


def write_table(path: Path, family: Path, digest: str, **ks: int) -> str:
    """Write a table of 4 steps and return its path."""
    loras = {
        name: TableEntry(
            k=k, sha256=sha256_of(family / "loras" / f"{name}.safetensors"), scale=1.0, pictures=2
        )
        for name, k in ks.items()
    }
    table = BalTable(
        format=1,
        model=str(family),
        weights_sha256=digest,
        scheduler="euler",
        num_inference_steps=4,
        margin={"ssim": 0.05},
        loras=loras,
    )
    path.write_text(table.to_toml())
    return str(path)


def test_each_request_waits_at_its_loras_lowest_k_and_records_say_what_each_allows(
    tiny_family: Path, controls: Path, tmp_path: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_table(tmp_path / "t.toml", tiny_family, digest, gold=3, neon=2)
    bounds: list[int] = []
    monkeypatch.setattr(
        "swiftdiff.systems.swiftdiff.Service", noting_bounds("swiftdiff.systems.swiftdiff", bounds)
    )
    asked = [
        with_adapters(0, names, f"r{index}", num_inference_steps=4)
        for index, names in enumerate([("gold",), ("gold", "neon"), ("gold", "kohya"), ()])
    ]
    with engine(tiny_family, bal_k="auto", bal_table=table) as system:
        assert system.exactness == "approximate"
        outcomes = replay(system, asked, controls)
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert bounds == [3, 2, 0, 0]
    told = [[(each.id, each.bal_k, each.bal_note) for each in o.served.adapters] for o in outcomes]
    assert told == [
        [("gold", 3, None)],
        [("gold", 3, None), ("neon", 2, None)],
        [("gold", 3, None), ("kohya", 0, "not in bal_table")],
        [],
    ]
    assert [each.step_patched for each in outcomes[2].served.adapters] == [0, 0]


def noting_bounds(module: str, bounds: list[int]) -> Any:
    import importlib

    service = importlib.import_module(module).Service

    def note(model: Any, incoming: Any, bound: int, *rest: Any) -> Any:
        bounds.append(bound)
        return service(model, incoming, bound, *rest)

    return note


def test_a_lora_that_is_not_in_the_table_gives_the_exact_picture(
    tiny_family: Path, controls: Path, tmp_path: Path, digest: str
) -> None:
    one = with_adapters(0, ("neon",), num_inference_steps=4)
    with engine(tiny_family) as system:
        exact = serve(system, one, controls)
    table = write_table(tmp_path / "t.toml", tiny_family, digest, gold=3)
    with engine(tiny_family, bal_k="auto", bal_table=table) as system:
        assert are_equal(serve(system, one, controls), exact)


def test_a_table_of_another_model_or_scheduler_is_refused_before_anything_is_served(
    tiny_family: Path, tiny_family_copy: Path, tmp_path: Path, digest: str
) -> None:
    table = write_table(tmp_path / "t.toml", tiny_family, "00" * 32, gold=3)
    with pytest.raises(ConfigError, match=r"is for other weights than those of model .* sweep-k"):
        build_system(engine_config(tiny_family, bal_k="auto", bal_table=table))
    table = write_table(tmp_path / "t.toml", tiny_family, digest, gold=3)
    with pytest.raises(ConfigError, match=r"with scheduler 'euler', and this system has 'ddim'"):
        build_system(engine_config(tiny_family, "ddim", bal_k="auto", bal_table=table))
    with pytest.raises(ConfigError, match=r"cannot read bal_table"):
        build_system(engine_config(tiny_family, bal_k="auto", bal_table=str(tmp_path / "gone.toml")))


def test_a_lora_that_changed_since_it_was_measured_fails_its_request_and_no_other(
    tiny_family_copy: Path, controls: Path, tmp_path: Path, digest: str
) -> None:
    table = write_table(tmp_path / "t.toml", tiny_family_copy, digest, gold=3, neon=3)
    loras = tiny_family_copy / "loras"
    (loras / "gold.safetensors").write_bytes((loras / "kohya.safetensors").read_bytes())
    asked = [with_adapters(0, (name,), name, num_inference_steps=4) for name in ("gold", "neon")]
    with engine(tiny_family_copy, bal_k="auto", bal_table=table) as system:
        gold, neon = replay(system, asked, controls)
    assert isinstance(gold.error, AdapterError)
    assert "'gold' is not the one that its k in bal_table was measured with" in str(gold.error)
    assert neon.error is None


def test_the_same_weights_in_half_precision_are_the_same_weights(tiny_family: Path, digest: str) -> None:
    assert digest_of(tiny_family, "float16") == digest


def test_one_changed_weight_is_another_model() -> None:
    layer = torch.nn.Linear(2, 2)
    before = weights_digest({"unet": layer})
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert weights_digest({"unet": layer}) != before
    assert weights_digest({"text_encoder": layer}) != weights_digest({"unet": layer})


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ('bal_k = "auto"', "a bal_table too for bal_k"),
        ('bal_k = 4\nbal_table = "t.toml"', 'bal_k = "auto" too for bal_table to count'),
        ('bal_k = "automatic"', "bal_k"),
    ],
)
def test_auto_and_its_table_go_together(switches: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(f'name = "a"\nengine = "swiftdiff"\n[swiftdiff]\n{switches}\n')


def test_a_relative_table_counts_from_the_configs_folder(tmp_path: Path) -> None:
    text = 'name = "a"\nengine = "swiftdiff"\n[swiftdiff]\nbal_k = "auto"\nbal_table = "k/t.toml"\n'
    config = resolve_paths(parse_config(text), tmp_path)
    assert config.swiftdiff.bal_table == str((tmp_path / "k/t.toml").resolve())
    assert parse_config(config.to_toml()) == config
    assert config.swiftdiff.latent_parallelism
