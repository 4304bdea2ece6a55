from __future__ import annotations

from pathlib import Path

import pytest
from fakes import make_request, write_requests

from swiftdiff.compare.plan import (
    ComparePlan,
    choose_baseline,
    find_configs,
    is_config,
    make_plan,
    slug,
)
from swiftdiff.config import AdapterStoreConfig, ServingConfig
from swiftdiff.engine.options import ReplayOptions
from swiftdiff.errors import ConfigError, SwiftdiffError


def config(name: str, **fields: object) -> ServingConfig:
    return ServingConfig.model_validate({"name": name, "engine": "swiftdiff", "model": "none"} | fields)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_requests(tmp_path / "trace.jsonl", [make_request("a")])


def test_configs_stands_for_the_shipped_ones_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_config(Path("configs"))
    names = [system.name for system in find_configs([Path("configs")])]
    assert {"diffusers", "swiftdiff", "swiftdiff-bal"} <= set(names)
    assert names[0] == "diffusers"
    (one,) = find_configs([Path("configs/swiftdiff.toml")])
    assert one.name == "swiftdiff"


def test_a_folder_of_ones_own_comes_before_the_shipped_one_and_is_all_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("b", "a"):
        (tmp_path / f"configs/{name}.toml").write_text(f'name = "{name}"\nengine = "diffusers"\n')
    assert [system.name for system in find_configs([Path("configs")])] == ["a", "b"]


def test_paths_in_a_config_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "x"\nengine = "diffusers"\n[adapters]\nurl = "store"\n')
    (system,) = find_configs([tmp_path / "x.toml"])
    assert system.adapters.url == str(tmp_path / "store")


def test_what_is_no_config_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not is_config(tmp_path / "empty")
    assert not is_config(tmp_path / "nowhere")
    assert is_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"cannot read config .*nowhere\.toml"):
        find_configs([tmp_path / "nowhere.toml"])
    (tmp_path / "wrong.toml").write_text('name = "x"\nengine = "swiftdif"\n')
    with pytest.raises(ConfigError, match="swiftdif"):
        find_configs([tmp_path / "wrong.toml"])


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ((), "name at least two systems"),
        (("a",), "two systems are called 'a' and 'a'"),
        (("A b", "A_b"), "two systems are called"),
    ],
)
def test_systems_that_could_not_be_told_apart_are_refused(
    trace: Path, others: tuple[str, ...], says: str
) -> None:
    systems = [config("a"), *map(config, others)]
    with pytest.raises(ConfigError, match=says):
        make_plan(trace, systems, ReplayOptions(), baseline="a", force=True)


def test_systems_that_serve_different_things_are_refused_before_anything_is_measured(trace: Path) -> None:
    others = {
        "models": config("b", model="other"),
        "kinds of device": config("b", device="cuda:0"),
        "adapter stores": config("b", adapters=AdapterStoreConfig(url="/elsewhere")),
    }
    for aspect, other in others.items():
        with pytest.raises(ConfigError, match=f"different {aspect}"):
            make_plan(trace, [config("a"), other], ReplayOptions(), baseline="a")
        make_plan(trace, [config("a"), other], ReplayOptions(), baseline="a", force=True)


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SwiftdiffError, match="cannot read trace"):
        make_plan(tmp_path / "none.jsonl", [config("a"), config("b")], ReplayOptions(), baseline="a")


def test_the_baseline_is_stock_or_as_wanted() -> None:
    systems = [config("a"), config("stock", engine="diffusers")]
    assert choose_baseline(systems, None) == "stock"
    assert choose_baseline(systems[:1], None) == "a"
    assert choose_baseline(systems, "a") == "a"
    with pytest.raises(ConfigError, match="--baseline is 'b', but must be one of a, stock"):
        choose_baseline(systems, "b")


def test_orders_are_abc_abc_and_abc_cba(trace: Path) -> None:
    systems = [config(name) for name in "abc"]

    def turns(plan: ComparePlan) -> str:
        return "".join(system.name for repeat in (1, 2, 3) for system in plan.turns(repeat))

    plan = make_plan(trace, systems, ReplayOptions(), baseline="a")
    assert turns(plan) == "abcabcabc"
    assert "A B C, A B C" in plan.describe_order()
    plan = make_plan(trace, systems, ReplayOptions(), baseline="a", order="abba")
    assert turns(plan) == "abccbaabc"
    assert "A B C, C B A" in plan.describe_order()


def test_a_plan_comes_back_from_json_as_it_was(trace: Path) -> None:
    plan = make_plan(trace, [config("a"), config("b")], ReplayOptions(limit=3), baseline="b")
    assert ComparePlan.model_validate_json(plan.model_dump_json()) == plan


def test_names_become_folders() -> None:
    assert slug("+graphs") == "+graphs"
    assert slug("my system/2") == "my_system_2"
    assert slug("..") == "system"
