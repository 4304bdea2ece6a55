"""Tests that each foreign adapter id gets one stand-in, always the same, and that requests name it."""

from __future__ import annotations

import pytest
from fakes import make_request

from swiftdiff.adapters.mapping import AdapterMapping, count_uses, map_adapters
from swiftdiff.adapters.mapping_file import MappingRule, Rule
from swiftdiff.adapters.store import ADAPTER_ID
from swiftdiff.errors import AdapterError, ConfigError
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.trace.foreign_ids import stable_choice

LORAS = ["gold", "neon", "night"]
CONTROLNETS = ["depth", "edges"]


def ask(*loras: str, controlnets: tuple[str, ...] = ()) -> ImageRequest:
    return make_request(
        "r",
        loras=tuple(LoraUse(id=id_, scale=0.5) for id_ in loras),
        controlnets=tuple(ControlNetUse(id=id_, image="c.png", scale=0.7) for id_ in controlnets),
    )


def mapped(rule: Rule | MappingRule, *requests: ImageRequest) -> AdapterMapping:
    rule = rule if isinstance(rule, MappingRule) else MappingRule(rule)
    known = {"lora": LORAS, "controlnet": CONTROLNETS}
    return map_adapters(rule, count_uses(requests), known, "/store")  # type: ignore[arg-type]


def test_an_alias_gives_every_foreign_id_an_identity_of_its_own() -> None:
    foreign = [f"f{n}" for n in range(100)]
    mapping = mapped("alias", *(ask(id_, "gold", controlnets=("cn",)) for id_ in foreign))
    adapters = mapping.adapters["lora"]
    assert [adapters[id_].id for id_ in foreign] == foreign
    assert {adapters[id_].weights for id_ in foreign} == set(LORAS)
    assert all(adapters[id_].weights == stable_choice(id_, LORAS) for id_ in foreign)
    assert adapters["gold"].weights == "gold"
    assert adapters["gold"].uses == 100
    assert mapping.adapters["controlnet"]["cn"].weights in CONTROLNETS
    counts = mapping.counts["lora"]
    assert (counts.trace, counts.mapped, counts.renamed, counts.served, counts.weights) == (
        101,
        100,
        0,
        101,
        3,
    )


@pytest.mark.parametrize(
    "foreign", ["civitai:1/2", "../../etc/passwd", "-x", ".x", "β", "a b", "x" * 500, "\n", "...", "..\\x"]
)
def test_an_id_that_no_store_takes_is_served_under_one_that_it_takes(foreign: str) -> None:
    mapping = mapped("alias", ask(foreign))
    (adapter,) = mapping.adapters["lora"].values()
    assert ADAPTER_ID.fullmatch(adapter.id)
    assert mapping.counts["lora"].renamed == 1
    assert [use.id for use in mapping.apply(ask(foreign)).loras] == [adapter.id]


def test_ids_that_look_alike_once_they_are_safe_stay_apart() -> None:
    ids = ["a/b", "a:b", "a b", "a_b", "x" * 200, "x" * 201]
    served = [each.id for each in mapped("alias", ask(*ids)).adapters["lora"].values()]
    assert len(set(served)) == len(ids)


def test_popularity_deals_the_stores_adapters_out_by_rank_and_leaves_its_own_alone() -> None:
    requests = [ask("rare"), *[ask("top")] * 5, *[ask("second")] * 3, *[ask("third")] * 2, ask("neon")]
    adapters = mapped("popularity", *requests).adapters["lora"]
    assert {id_: each.id for id_, each in adapters.items()} == {
        "top": "gold",
        "second": "neon",
        "third": "night",
        "rare": "gold",
        "neon": "neon",
    }


def test_a_hash_does_not_depend_on_what_else_is_in_the_trace() -> None:
    alone = mapped("hash", ask("a")).adapters["lora"]["a"]
    among = mapped("hash", ask("z"), ask("a"), ask("z")).adapters["lora"]["a"]
    assert alone == among
    assert alone.id == alone.weights == stable_choice("a", LORAS)


def test_loras_that_meet_on_one_id_are_merged_with_their_scales_added() -> None:
    rule = MappingRule("file", "m.json", {"lora": {"a": "neon", "b": "gold", "c": "neon"}})
    request = ask("a", "b", "c", "neon")
    served = mapped(rule, request).apply(request)
    assert [(use.id, use.scale) for use in served.loras] == [("neon", 1.5), ("gold", 0.5)]
    assert served.model_copy(update={"loras": ()}) == request.model_copy(update={"loras": ()})


def test_controlnets_that_meet_stay_apart_for_each_has_its_own_image() -> None:
    rule = MappingRule("file", "m.json", {"controlnet": {"a": "edges", "b": "edges"}})
    request = ask(controlnets=("a", "b"))
    served = mapped(rule, request).apply(request)
    assert [use.id for use in served.controlnets] == ["edges", "edges"]
    assert served.controlnets[0].scale == 0.7


def test_a_file_goes_before_the_stores_own_ids_and_needs_only_the_foreign_ones() -> None:
    rule = MappingRule("file", "m.json", {"lora": {"gold": "neon", "f": "night", "unused": "nowhere"}})
    adapters = mapped(rule, ask("gold", "f", "neon")).adapters["lora"]
    assert {id_: each.id for id_, each in adapters.items()} == {"gold": "neon", "f": "night", "neon": "neon"}


def test_ids_that_a_file_lacks_are_named_and_counted_in_one_error() -> None:
    rule = MappingRule("file", "m.json", {"lora": {"f0": "gold"}})
    with pytest.raises(ConfigError) as caught:
        mapped(rule, ask(*(f"f{n}" for n in range(10))))
    assert "--adapters m.json has no LoRA 'f1', 'f2', 'f3' and 6 more of the trace" in caught.value.message


def test_a_file_that_names_what_the_store_lacks_is_refused() -> None:
    rule = MappingRule("file", "m.json", {"lora": {"f": "glod"}})
    with pytest.raises(ConfigError, match=r"m\.json names LoRA 'glod', but /store does not have that"):
        mapped(rule, ask("f"))


@pytest.mark.parametrize("how", ["alias", "popularity", "hash"])
def test_a_store_without_adapters_of_a_kind_is_refused_only_if_the_trace_needs_one(how: Rule) -> None:
    rule = MappingRule(how)
    none = {"lora": LORAS, "controlnet": []}
    map_adapters(rule, count_uses([ask("f")]), none, "/store")  # type: ignore[arg-type]
    with pytest.raises(
        AdapterError, match="ControlNets of the trace, 'cn', cannot be mapped: /store has none"
    ):
        map_adapters(rule, count_uses([ask(controlnets=("cn",))]), none, "/store")  # type: ignore[arg-type]


def test_a_mapping_survives_its_file_and_its_hash_names_what_goes_where() -> None:
    mapping = mapped("alias", ask("a", "β", controlnets=("c",)))
    again = AdapterMapping.model_validate_json(mapping.model_dump_json(indent=2))
    assert again == mapping
    assert again.sha256 == mapping.sha256
    more_uses = mapped("alias", ask("a"), ask("a", "β", controlnets=("c",)))
    assert more_uses.sha256 == mapping.sha256
    assert mapped("hash", ask("a", "β", controlnets=("c",))).sha256 != mapping.sha256


def test_the_description_says_how_many_ids_stand_on_how_many_weights() -> None:
    request = ask("a", "b", "gold", controlnets=("c",))
    assert (
        mapped("alias", request).describe().startswith("alias, 2 LoRA and 1 ControlNet ids each with a file")
    )
    assert "scales added" in mapped("popularity", request).describe()
    assert mapped("hash", ask("gold")).describe() == "hash, nothing to map"
    assert mapped("hash", make_request("r")).describe() == "hash, nothing to map"
