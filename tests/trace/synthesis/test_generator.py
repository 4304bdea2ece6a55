from __future__ import annotations

from itertools import islice

import pytest

from swiftdiff.request import ImageRequest, validate_servable
from swiftdiff.scenes.captions import parse_caption
from swiftdiff.trace.synthesis.generator import content_pool, generate
from swiftdiff.trace.synthesis.spec import TraceSpec, find_spec, load_spec, parse_spec, shipped_specs

SPEC = """
[arrivals.poisson]
rate_per_s = 2.0
[loras]
per_request = { values = [0, 1, 2], weights = [2, 1, 1] }
scale = { low = 0.5, high = 1.0 }
[loras.zipf]
count = 50
[controlnets]
per_request = 1
[controlnets.zipf]
ids = ["edges", "strange"]
"""


def made(spec: TraceSpec, number: int = 300, seed: int = 0) -> list[ImageRequest]:
    return list(islice(generate(spec, seed, content_pool(spec, seed, "t")), number))


def test_fewer_requests_are_the_beginning_of_more() -> None:
    spec = parse_spec(SPEC)
    assert made(spec, 50) == made(spec, 5000)[:50]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("rate_per_s = 2.0", "rate_per_s = 3.0", {"timestamp"}),
        ("low = 0.5", "low = 0.6", {"loras"}),
        ("per_request = 1\n", "per_request = 2\n", {"controlnets"}),
        ("[loras]", "[pictures]\nnum_images = 2\n[loras]", {"num_images"}),
    ],
)
def test_changing_one_distribution_leaves_all_others_alone(old: str, new: str, changed: set[str]) -> None:
    before, after = made(parse_spec(SPEC)), made(parse_spec(SPEC.replace(old, new, 1)))
    differ = {
        field
        for a, b in zip(before, after, strict=True)
        for field in ImageRequest.model_fields
        if getattr(a, field) != getattr(b, field)
    }
    assert differ == changed


def test_a_change_of_scales_keeps_which_loras_are_used() -> None:
    before, after = made(parse_spec(SPEC)), made(parse_spec(SPEC.replace("low = 0.5", "low = 0.6")))
    ids = [[[use.id for use in request.loras] for request in requests] for requests in (before, after)]
    assert ids[0] == ids[1]


def test_control_images_show_the_scene_that_the_prompt_names() -> None:
    spec = parse_spec(SPEC)
    pool = content_pool(spec, 0, "t")
    for request in islice(generate(spec, 0, pool), 20):
        (use,) = request.controlnets
        number = int(use.image.split("/")[1].split("-")[0])
        assert pool.prompt(number) == request.prompt
        assert parse_caption(request.prompt) is not None


def test_each_setting_has_its_turn_in_the_papers_trace() -> None:
    requests = made(load_spec(find_spec("paper")), 14)
    settings = [(len(request.controlnets), len(request.loras)) for request in requests]
    assert settings == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (3, 0), (3, 2)] * 2


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_requests_of_shipped_specs_can_be_served(name: str) -> None:
    requests = made(load_spec(find_spec(name)), 500)
    for request in requests:
        validate_servable(request)
    arrivals = [request.timestamp for request in requests]
    assert arrivals == sorted(arrivals)


@pytest.mark.parametrize("name", ["paper", "steady", "bursty"])
def test_specs_for_shapes_name_only_adapters_that_it_has(name: str) -> None:
    from swiftdiff.resources import workloads_root

    family = workloads_root().parent / "src" / "swiftdiff" / "data" / "shapes"
    loras = {file.stem for file in (family / "loras").iterdir()}
    controlnets = {folder.name for folder in (family / "controlnets").iterdir()}
    for request in made(load_spec(find_spec(name)), 500):
        assert {use.id for use in request.loras} <= loras
        assert {use.id for use in request.controlnets} <= controlnets
