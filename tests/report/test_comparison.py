from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import fake_config
from PIL import Image
from run_folders import failed, make_run, noisy, served

from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.engine.options import ClosedLoad, ReplayOptions
from swiftdiff.engine.run_info import MappedAdapters
from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.report.comparison import compare_runs
from swiftdiff.report.comparison_report import check_free, to_json, warnings
from swiftdiff.report.comparison_tables import comparison_tables, split_columns
from swiftdiff.report.tables import Table


def fast_config(name: str = "fast") -> ServingConfig:
    return ServingConfig(name=name, engine="swiftdiff", model="none")


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    return make_run(tmp_path / "stock", [served("a", 1.0), served("b", 2.0), served("c", 6.0)])


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    requests = [served("c", 1.0), served("a", 0.5), served("b", 1.0, queue_wait_s=1.0)]
    return make_run(tmp_path / "fast", requests, config=fast_config())


def cell(table: Table, row: str, system: str) -> Any:
    index = [column.name for column in table.columns].index(system)
    (found,) = [cells for cells in table.rows if str(cells[0]).strip() == row]
    return found[index]


def test_speed_ups_are_paired_by_request_not_by_order(stock: Path, fast: Path) -> None:
    run = compare_runs([stock, fast]).runs[1]
    service = run.service_speedup
    assert service.mean == pytest.approx((1 + 2 + 6) / (0.5 + 1 + 1))
    assert service.median == pytest.approx(2.0 / 1.0)
    assert service.paired == pytest.approx(np.median([1 / 0.5, 2 / 1, 6 / 1]))
    assert run.latency_speedup.mean == pytest.approx(9 / (0.5 + 2 + 1))
    assert run.latency_speedup.paired == pytest.approx(np.median([1 / 0.5, 2 / 2, 6 / 1]))
    assert run.occupied_speedup.mean == pytest.approx((9 + 0.3) / (2.5 + 0.3))


def test_the_baseline_is_stock_and_the_first_column_wherever_it_is_named(stock: Path, fast: Path) -> None:
    comparison = compare_runs([fast, stock])
    assert [run.label for run in comparison.runs] == ["stock", "fast"]
    assert comparison.baseline.service_speedup.mean == 1
    assert comparison.baseline.pictures is None


@pytest.mark.parametrize("name", ["fast", "fast-folder"])
def test_any_run_can_be_the_baseline_by_system_or_folder(stock: Path, tmp_path: Path, name: str) -> None:
    other = make_run(tmp_path / "fast-folder", [served(n, 0.5) for n in "abc"], config=fast_config())
    comparison = compare_runs([stock, other], baseline=name)
    assert comparison.baseline.label == "fast"
    assert comparison.runs[1].service_speedup.paired == pytest.approx(0.25)


def test_a_baseline_that_is_not_there_is_refused_with_the_names(stock: Path, fast: Path) -> None:
    with pytest.raises(ConfigError, match=r"--baseline is 'fats', but must be one of stock, fast"):
        compare_runs([stock, fast], baseline="fats")


def test_two_runs_of_one_system_are_told_apart_by_their_folders(stock: Path, tmp_path: Path) -> None:
    again = make_run(tmp_path / "again", [served(n, 1.0) for n in "abc"], config=fake_config("stock"))
    assert [run.label for run in compare_runs([stock, again]).runs] == ["stock", "again"]


def test_only_requests_that_both_served_count_and_a_note_says_so(fast: Path, tmp_path: Path) -> None:
    stock = make_run(tmp_path / "s", [served("a", 1.0), failed("b"), served("c", 6.0)])
    comparison = compare_runs([stock, fast])
    run = comparison.runs[1]
    assert run.num_paired == 2
    assert run.service_speedup.mean == pytest.approx(7 / 1.5)
    assert any("both served 2 requests" in caveat for caveat in comparison.caveats)


def test_runs_that_share_no_served_request_have_no_speed_up(fast: Path, tmp_path: Path) -> None:
    stock = make_run(tmp_path / "s", [failed(name) for name in "abc"])
    comparison = compare_runs([stock, fast])
    assert comparison.runs[1].service_speedup.mean is None
    (main, *_) = comparison_tables(comparison)
    assert cell(main, "requests failed", "s") == 3
    assert cell(main, "latency, mean ms", "s") is None


def test_picture_differences_are_numpys(stock: Path, fast: Path) -> None:
    before, after = noisy(100, seed=1), noisy(110, seed=2)
    before.save(stock / "images/b-0.png")
    after.save(fast / "images/b-0.png")
    difference = np.asarray(after).astype(float) - np.asarray(before)
    pictures = compare_runs([stock, fast]).runs[1].pictures
    assert pictures is not None
    assert len(pictures.pairs) == 3
    assert pictures.identical == 2
    assert pictures.max_abs == np.abs(difference).max()
    assert pictures.mean_abs == pytest.approx(np.abs(difference).mean() / 3)
    assert pictures.psnr_db == pytest.approx(10 * math.log10(255**2 / ((difference**2).mean() / 3)))
    assert pictures.worst is not None
    assert pictures.worst.request_id == "b"
    assert pictures.worst.psnr_db == pytest.approx(10 * math.log10(255**2 / (difference**2).mean()))


def test_differences_in_both_directions_are_exact(stock: Path, tmp_path: Path) -> None:
    fast = make_run(
        tmp_path / "fast",
        [served("a", 1.0, level=0), served("b", 1.0, level=255), served("c", 1.0)],
        config=fast_config(),
        exactness="approximate",
    )
    comparison = compare_runs([stock, fast])
    pictures = comparison.runs[1].pictures
    assert pictures is not None
    assert [pair.max_abs for pair in pictures.pairs] == [100, 155, 0]
    assert comparison.caveats == ()  # it never claimed to be exact


def test_identical_pictures_have_an_infinite_psnr_which_json_writes_as_null(stock: Path, fast: Path) -> None:
    comparison = compare_runs([stock, fast])
    table = comparison_tables(comparison)[-1]
    assert cell(table, "identical", "fast") == 3
    assert table.shown()[-1] == ["lowest PSNR, dB", "–", "∞"]
    text = json.dumps(to_json(comparison), allow_nan=False)
    assert json.loads(text)["runs"][1]["pictures"]["psnr_db"] is None


def test_a_system_that_wrongly_calls_itself_exact_is_named(stock: Path, fast: Path) -> None:
    Image.new("RGB", (8, 8), (100, 100, 102)).save(fast / "images/c-0.png")
    (caveat,) = compare_runs([stock, fast]).caveats
    assert caveat == (
        "fast is declared exact, but its pictures differ by up to 2 levels of 255, most in c, picture 0"
    )


def test_one_level_of_rounding_is_still_exact(stock: Path, fast: Path) -> None:
    Image.new("RGB", (8, 8), (101, 100, 99)).save(fast / "images/c-0.png")
    assert compare_runs([stock, fast]).caveats == ()


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _resize(path: Path) -> None:
    Image.new("RGB", (16, 8)).save(path)


@pytest.mark.parametrize(
    ("damage", "says"), [(_delete, "is not there"), (_truncate, "cannot be read"), (_resize, "is 16×8")]
)
def test_pictures_that_cannot_be_compared_are_counted_and_the_others_are(
    stock: Path, fast: Path, damage: Any, says: str
) -> None:
    damage(fast / "images/b-0.png")
    comparison = compare_runs([stock, fast])
    pictures = comparison.runs[1].pictures
    assert pictures is not None
    assert [pair.request_id for pair in pictures.pairs] == ["a", "c"]
    assert cell(comparison_tables(comparison)[-1], "not comparable", "fast") == 1
    (caveat,) = comparison.caveats
    assert "b-0.png" in caveat
    assert says in caveat


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "trace": ({"trace_sha256": "b" * 64}, "different traces: SHA-256 aaaaaaaaaaaa (stock); SHA-256 bbb"),
    "model": ({"model": "other"}, r"different models: none (stock); other (odd)"),
    "load": ({"options": ReplayOptions(load=ClosedLoad(max_concurrency=2))}, "different loads: trace"),
    "slo": ({"options": ReplayOptions(slo_ms=5.0)}, "different SLOs: the trace's (stock); 5 ms (odd)"),
    "warm-ups": ({"options": ReplayOptions(num_warmups=2)}, "different numbers of warm-ups: 0 (stock); 2"),
    "device": ({"device": "cuda:0"}, "different kinds of device: cpu (stock); cuda (odd)"),
    "store": (
        {"emulated_store": "40 ms latency"},
        "adapter stores: the model's own (stock); the model's own, e",
    ),
    "mapping": (
        {"mapped_adapters": MappedAdapters(how="alias", sha256="c" * 64, description="alias")},
        "different mappings of adapter ids: none (stock); alias, SHA-256 cccccccccccc (odd)",
    ),
    "cores": (
        {"environment": {"usable_cores": 1}},
        "different hardware: a CPU, 2 of 2 cores, 8 GiB (stock);",
    ),
    "gpu": ({"environment": {"gpus": ["H100"]}}, "8 GiB, H100 (odd)"),
    "unfinished": ({"num_requests": 5}, "odd is incomplete: 2 of 5 requests were not served"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_runs_that_differ_in_more_than_their_system_are_refused_unless_forced(
    stock: Path, tmp_path: Path, name: str
) -> None:
    changes, says = OTHERS[name]
    odd = make_run(tmp_path / "odd", [served(n, 1.0) for n in "abc"], **changes)
    with pytest.raises(ConfigError) as caught:
        compare_runs([stock, odd])
    assert says in str(caught.value)
    assert "--force" in str(caught.value)
    comparison = compare_runs([stock, odd], force=True)
    assert any(says in line and line.startswith("NOT COMPARABLE") for line in warnings(comparison))
    assert to_json(comparison)["comparable"] is False


def test_a_store_elsewhere_is_another_store(stock: Path, tmp_path: Path) -> None:
    config = fake_config("odd").model_copy(update={"adapters": AdapterStoreConfig(url="/elsewhere")})
    odd = make_run(tmp_path / "odd", [served(n, 1.0) for n in "abc"], config=config)
    with pytest.raises(ConfigError, match="different adapter stores"):
        compare_runs([stock, odd])


def test_a_few_mebibytes_of_memory_are_no_other_machine(stock: Path, tmp_path: Path) -> None:
    environment = {"memory_bytes": 8 * 2**30 - 3 * 2**20}
    same = make_run(tmp_path / "same", [served(n, 1.0) for n in "abc"], environment=environment)
    assert compare_runs([stock, same]).obstacles == ()


def test_other_software_and_settings_are_noted_not_refused(stock: Path, tmp_path: Path) -> None:
    config = fast_config().model_copy(update={"dtype": "bfloat16", "scheduler": "ddim"})
    environment = {"packages": {"torch": "3"}, "git_commit": "0123456789abcdef+"}
    odd = make_run(tmp_path / "odd", [served(n, 1.0) for n in "abc"], config=config, environment=environment)
    caveats = compare_runs([stock, odd]).caveats
    assert "different schedulers: euler (stock); ddim (fast)" in caveats
    assert "different number types: float32 (stock); bfloat16 (fast)" in caveats
    assert any("swiftdiff 0.1.0 at 012345678+, torch 3" in caveat for caveat in caveats)


def test_a_run_without_environment_is_of_unknown_hardware(stock: Path, fast: Path) -> None:
    (fast / "environment.json").unlink()
    with pytest.raises(ConfigError, match="the hardware of fast is not known"):
        compare_runs([stock, fast])


@pytest.mark.parametrize("name", ["environment.json", "run.json", "config.toml"])
def test_a_damaged_file_is_named(stock: Path, fast: Path, name: str) -> None:
    (fast / name).write_text("[1, ")
    with pytest.raises(StorageError, match=rf"fast.{name}"):
        compare_runs([stock, fast], force=True)


def test_a_run_of_an_earlier_version_with_other_keys_can_be_compared(stock: Path, fast: Path) -> None:
    config = (fast / "config.toml").read_text()
    (fast / "config.toml").write_text("key_of_the_past = 1\n" + config)
    assert compare_runs([stock, fast]).obstacles == ()


def test_a_run_without_its_config_is_damaged(stock: Path, fast: Path) -> None:
    (fast / "config.toml").unlink()
    with pytest.raises(StorageError, match=r"has no config.toml"):
        compare_runs([stock, fast], force=True)


def test_a_request_that_was_recorded_twice_is_a_damaged_run(stock: Path, fast: Path) -> None:
    path = fast / "requests.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(StorageError, match=r"two records of request c"):
        compare_runs([stock, fast])


def test_a_folder_that_is_no_run_is_refused_with_the_way_to_make_one(stock: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"swiftdiff.toml is not a run folder; make one with: swiftdiff replay"
    ):
        config = tmp_path / "swiftdiff.toml"
        config.touch()
        compare_runs([stock, config])
    with pytest.raises(ConfigError, match=r"nowhere is not there; make one"):
        compare_runs([stock, tmp_path / "nowhere"])


def test_a_run_beside_itself_is_refused(stock: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(stock)
    with pytest.raises(ConfigError, match="is named twice"):
        compare_runs([stock, link])
    with pytest.raises(ConfigError, match="at least two"):
        compare_runs([stock])


def test_stages_of_both_engines_stand_in_one_order(tmp_path: Path) -> None:
    old = {"lora_load": 0.2, "lora_patch": 0.1, "text_encode": 0.1, "denoise": 1.0, "restore": 0.1}
    new = {"text_encode": 0.1, "lora_wait": 0.05, "controlnet_wait": 0.01, "denoise": 0.5}
    stock = make_run(tmp_path / "stock", [served("a", 1.4, stages=old, loras=("neon",))])
    fast = make_run(tmp_path / "fast", [served("a", 0.66, stages=new, loras=("neon",))], config=fast_config())
    tables = {table.name: table for table in comparison_tables(compare_runs([stock, fast]))}
    stages = tables["stages"]
    assert [str(row[0]).strip() for row in stages.rows] == [
        "latency", "queue", "controlnet_wait", "lora_load", "lora_wait", "lora_patch", "text_encode",
        "denoise", "restore *",
    ]  # fmt: skip
    assert cell(stages, "lora_load", "stock") == pytest.approx(200)
    assert cell(stages, "lora_load", "fast") is None
    assert cell(tables["comparison"], "LoRA load or wait, ms *", "stock") == pytest.approx(200)
    assert cell(tables["comparison"], "LoRA load or wait, ms *", "fast") == pytest.approx(50)


def test_many_systems_are_split_over_tables_that_all_show_the_baseline(stock: Path, tmp_path: Path) -> None:
    others = [
        make_run(tmp_path / f"s{i}", [served(n, 1.0) for n in "abc"], config=fast_config(f"s{i}"))
        for i in range(4)
    ]
    table = comparison_tables(compare_runs([stock, *others]))[0]
    parts = list(split_columns(table, 3))
    names = [[column.name for column in part.columns[1:]] for part in parts]
    assert names == [["stock", "s0", "s1"], ["stock", "s2", "s3"]]
    assert cell(parts[1], "declared", "s3") == "exact"
    assert [bool(part.note) for part in parts] == [False, True]
    assert len(list(split_columns(table, 5))) == 1


def test_a_comparison_does_not_go_into_a_folder_with_other_things(stock: Path) -> None:
    with pytest.raises(StorageError, match="is not empty; name another"):
        check_free(stock)
