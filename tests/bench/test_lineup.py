from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from bench_fakes import small_options
from PIL import Image

from swiftdiff.bench.lineup import ABLATION, MAIN, STOCK, SYSTEMS, check_options, line_up
from swiftdiff.bench.options import BenchOptions, View
from swiftdiff.bench.requests import prepare_model
from swiftdiff.bench.settings import PAPER_SETTINGS, AdapterSetting
from swiftdiff.errors import ConfigError

CORES = (4, 5, 6)


def _names(view: View, options: BenchOptions) -> dict[str, tuple[str, ...]]:
    contenders = line_up("shapes", view, options, CORES, 2)
    return {each.name: tuple(setting.name for setting in each.settings) for each in contenders}


def test_the_settings_are_the_papers_seven() -> None:
    names = [setting.name for setting in PAPER_SETTINGS]
    assert names == ["0C/0L", "1C/0L", "0C/1L", "1C/1L", "2C/2L", "3C/0L", "3C/2L"]
    assert [AdapterSetting.parse(name) for name in names] == list(PAPER_SETTINGS)


@pytest.mark.parametrize("text", ["", "1C", "C/L", "1C/1L/1", "1L/1C", "-1C/0L"])
def test_a_setting_that_is_written_otherwise_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2C/1L"):
        AdapterSetting.parse(text)


def test_by_default_each_system_is_measured_where_it_has_something_to_show() -> None:
    names = _names("same-hardware", BenchOptions())
    assert tuple(names) == SYSTEMS
    assert len(names[STOCK]) == len(names["swiftdiff"]) == 7
    for name in ("swiftdiff+cache", "swiftdiff+bal40"):
        assert names[name] == ("0C/1L", "1C/1L", "2C/2L", "3C/2L")
    assert names["all-off"] == names["graphs-only"] == ("0C/0L", "1C/1L", "3C/2L")
    assert names["offload-only"] == ("1C/1L", "3C/2L")
    assert set(_names("one-core", BenchOptions())) == {STOCK, "swiftdiff"}


def test_named_systems_are_measured_in_every_chosen_setting_beside_stock() -> None:
    options = small_options(systems=("graphs-only",), settings=("0C/0L", "2C/0L"))
    for view in ("same-hardware", "one-core"):
        assert _names(view, options) == {STOCK: ("0C/0L", "2C/0L"), "graphs-only": ("0C/0L", "2C/0L")}


def test_in_the_one_core_view_stock_has_one_core_and_swiftdiff_one_for_each_lane() -> None:
    stock, swift = line_up("shapes", "one-core", small_options(), CORES, stock_threads=3)
    assert (stock.cores, stock.config.threads) == ((6,), 1)
    assert (swift.cores, swift.config.threads) == ((5, 6), 2)
    stock, swift = line_up("shapes", "same-hardware", small_options(), CORES, stock_threads=3)
    assert (stock.cores, stock.config.threads) == (CORES, 3)
    assert (swift.cores, swift.config.threads) == (CORES, None)


def test_each_line_of_the_ablation_has_one_switch_more_than_all_off() -> None:
    switches = (
        "latent_parallelism",
        "controlnet_offload",
        "graph_replay",
        "tuned_kernels",
        "reuse_invariants",
    )
    on = {
        name: [switch for switch in switches if getattr(config, switch)] for name, config in ABLATION.items()
    }
    assert on.pop("all-off") == []
    assert sorted(on.values()) == sorted([switch] for switch in switches)
    for config in (MAIN["swiftdiff"], *ABLATION.values()):
        assert (config.lora_cache_mb, config.bal_k) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "cores", "message"),
    [
        ({"systems": ("graph-only",)}, CORES, "did you mean 'graphs-only'"),
        ({"settings": ("1C1L",)}, CORES, "--setting is '1C1L'"),
        ({"views": ("one-core",)}, (0,), "two cores"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    fields: dict[str, object], cores: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(small_options(**fields), cores)


def test_requests_of_a_setting_differ_in_prompt_and_seed_but_not_in_adapters() -> None:
    case = prepare_model("shapes", PAPER_SETTINGS)
    setting = AdapterSetting(2, 2)
    first, second = (case.request(setting, repeat, 20) for repeat in (0, 1))
    assert first == case.request(setting, 0, 20)
    assert (first.prompt, first.seed) != (second.prompt, second.seed)
    assert [use.id for use in first.controlnets] == [use.id for use in second.controlnets]
    assert first.loras == second.loras
    assert (len(first.controlnets), len(first.loras), first.num_inference_steps) == (2, 2, 20)


def test_settings_that_follow_each_other_share_no_lora_so_that_none_is_still_in_the_weights() -> None:
    case = prepare_model("shapes", PAPER_SETTINGS)
    loras = [{use.id for use in case.request(setting, 0, 20).loras} for setting in PAPER_SETTINGS]
    assert all(not before & after for before, after in itertools.pairwise(loras))


def test_control_images_have_the_models_size_and_are_where_requests_say(tmp_path: Path) -> None:
    case = prepare_model("shapes", PAPER_SETTINGS)
    case.draw_controls(tmp_path)
    for repeat in range(6):
        request = case.request(AdapterSetting(3, 0), repeat, 20)
        for use in request.controlnets:
            with Image.open(tmp_path / use.image) as image:
                assert image.size == (request.width, request.height) == (128, 128)


def test_a_setting_with_more_adapters_than_the_store_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--setting is '4C/0L'.*3 ControlNets and 8 LoRAs"):
        prepare_model("shapes", [AdapterSetting(4, 0)])
