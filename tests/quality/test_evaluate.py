"""An evaluation gives a perfect artist full marks, finds what is wrong, and goes on after interruptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swiftdiff.errors import ConfigError
from swiftdiff.quality.evaluate import EVALUATION_NAME, RECORDS_NAME, Evaluation, evaluate_family
from swiftdiff.quality.plan import EvaluationOptions, plan_sets, sample, scale_to
from swiftdiff.scenes import COLOURS, Scene
from swiftdiff.scenes.scene import HELD_OUT_PAIRS

MakeArtist = Callable[..., Any]
OPTIONS = EvaluationOptions(prompts=12, held_out_prompts=4, control_pictures=4, lora_pictures=2, batch_size=5)


def _evaluate(artist: Any, out: Path, **changes: Any) -> Evaluation:
    return evaluate_family("test", artist, OPTIONS, out, **changes)


def test_a_perfect_artist_meets_every_aim(rendering_artist: MakeArtist, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = _evaluate(rendering_artist(), tmp_path, progress=lambda *step: seen.append(step))
    assert found.is_complete
    assert found.missed() == ()
    assert found.metrics["base.all_right"].value == 1
    assert found.metrics["base.colour"].low < 0.95  # a few objects are no proof
    assert found.metrics["lora.gold.recognised"].count == 2
    assert found.metrics["lora.gold.attributes"] == found.metrics["lora.gold.attributes_rendered"]
    assert "lora.gold.colour" not in found.metrics  # gold has none
    assert found.metrics["controlnet.edges.adherence"].value == 1
    assert ("base", 12, 12) in seen
    stored = json.loads((tmp_path / EVALUATION_NAME).read_text())
    assert stored["complete"]
    assert all(aim["met"] for aim in stored["aims"])


def test_swapped_colours_miss_the_colour_aim_and_leave_the_others(
    rendering_artist: MakeArtist, tmp_path: Path
) -> None:
    def swap(scene: Scene) -> Scene:
        colours = [item.colour for item in scene.objects]
        if len(colours) == 1:
            colours = [next(name for name in COLOURS if name != colours[0])]
        turned = zip(scene.objects, colours[1:] + colours[:1], strict=True)
        return replace(scene, objects=tuple(replace(item, colour=colour) for item, colour in turned))

    found = _evaluate(rendering_artist(change=swap), tmp_path, parts=("base",))
    missed = {result.aim.metric for result in found.missed(("base",))}
    assert missed == {"base.colour", "held_out.pair"}
    assert found.metrics["base.shape"].value == 1


def test_an_interrupted_evaluation_goes_on_and_draws_nothing_twice(
    rendering_artist: MakeArtist, tmp_path: Path
) -> None:
    first = rendering_artist(stop_after=10)
    with pytest.raises(KeyboardInterrupt):
        _evaluate(first, tmp_path)
    with (tmp_path / RECORDS_NAME).open("a") as file:
        file.write('{"key": "first-base", "set": "ba')  # as a crash leaves it
    second = rendering_artist()
    found = _evaluate(second, tmp_path)
    assert found.is_complete
    assert not set(first.drawn) & set(second.drawn)
    third = rendering_artist()
    assert _evaluate(third, tmp_path).metrics == found.metrics
    assert third.drawn == []


def test_other_weights_are_drawn_again(rendering_artist: MakeArtist, tmp_path: Path) -> None:
    _evaluate(rendering_artist(), tmp_path, parts=("loras",))
    artist = rendering_artist(weights="second")
    _evaluate(artist, tmp_path, parts=("loras",))
    assert len(artist.drawn) == 2


def test_parts_that_were_not_drawn_count_as_missed_only_when_asked_for(
    rendering_artist: MakeArtist, tmp_path: Path
) -> None:
    found = _evaluate(rendering_artist(), tmp_path, parts=("loras",))
    assert not found.is_complete
    assert found.missed(("loras",)) == ()
    assert {result.reached for result in found.missed()} == {None}


def test_pictures_are_stored_without_loss(rendering_artist: MakeArtist, tmp_path: Path) -> None:
    artist = rendering_artist()
    found = _evaluate(artist, tmp_path, parts=("loras",))
    record = found.records["lora.gold"][1]
    picture_set = next(item for item in found.sets if item.name == "lora.gold")
    drawn = artist.draw(picture_set, [sample(picture_set, 1, OPTIONS)])[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / record.picture)), drawn)


def test_a_sample_has_the_same_scene_and_seed_in_every_set_and_size_of_plan() -> None:
    sets = plan_sets(OPTIONS, ("edges",), ("neon",))
    larger = scale_to(OPTIONS, 500)
    base, held_out, edges, neon = (sample(item, 3, OPTIONS) for item in sets)
    assert base == edges == neon == sample(sets[0], 3, larger)
    assert base.seed == held_out.seed == OPTIONS.seed + 3
    first = held_out.scene.objects[0]
    assert (first.colour, first.shape) in HELD_OUT_PAIRS


def test_five_hundred_prompts_give_the_sizes_of_the_model_card() -> None:
    assert scale_to(OPTIONS, 500) == replace(EvaluationOptions(), batch_size=OPTIONS.batch_size)


def test_an_option_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match="num_inference_steps is 0"):
        EvaluationOptions(num_inference_steps=0)
