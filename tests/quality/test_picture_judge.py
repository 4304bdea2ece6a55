"""The judges must see what a request asked for, and say nothing where they cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from swiftdiff.quality import picture_judge
from swiftdiff.quality.picture_judge import PictureJudge, PictureScores, expect
from swiftdiff.scenes import Scene, control_from_scene, parse_caption, render, render_style

CAPTION = "a large red circle above a small blue square on a sand background"
OTHER = "a large green circle left of a small blue star on a sand background"


def scene(caption: str = CAPTION) -> Scene:
    parsed = parse_caption(caption)
    assert parsed is not None
    return parsed


def test_a_picture_of_its_caption_has_all_attributes_and_another_has_not() -> None:
    judge, expected = PictureJudge(), expect(scene())
    assert judge.score(render([scene()], 128)[0], expected).attributes == 1
    other = judge.score(render([scene(OTHER)], 128)[0], expected).attributes
    assert other is not None
    assert 0.3 < other < 0.8


def test_a_picture_follows_its_own_control_image_better_than_another() -> None:
    judge, picture = PictureJudge(), render([scene()], 128)[0]
    own, other = (control_from_scene("edges", scene(text), 128) for text in (CAPTION, OTHER))
    follows, strays = (
        judge.score(picture, expect(None, [("edges", 1.0, image)])).adherence for image in (own, other)
    )
    assert follows is not None
    assert strays is not None
    assert follows > 0.95 > strays + 0.2


def test_a_control_image_of_another_size_is_fitted() -> None:
    control = control_from_scene("layout", scene(), 64)
    score = (
        PictureJudge().score(render([scene()], 128)[0], expect(None, [("layout", 1.0, control)])).adherence
    )
    assert score is not None
    assert score > 0.95


def test_the_style_score_tells_a_style_from_a_plain_picture_and_from_another_style() -> None:
    judge, expected = PictureJudge(), expect(scene(), loras=[("neon", 1.0)])
    pictures = [render_style("neon", [scene()], 128)[0], render([scene()], 128)[0]]
    pictures.append(render_style("sketch", [scene()], 128)[0])
    neon, plain, sketch = (judge.score(picture, expected).style for picture in pictures)
    assert neon is not None
    assert neon > 0.9
    assert plain is not None
    assert plain < 0.1
    assert sketch is not None
    assert sketch < 0.1


def test_objects_are_read_in_their_style() -> None:
    judge, expected = PictureJudge(), expect(scene(), loras=[("neon", 1.0)])
    right, wrong = (
        judge.score(render_style("neon", [scene(text)], 128)[0], expected).attributes
        for text in (CAPTION, OTHER)
    )
    assert right is not None
    assert wrong is not None
    assert right > 0.85 > wrong


def test_what_no_judge_can_know_is_not_judged() -> None:
    judge, picture = PictureJudge(), render([scene()], 128)[0]
    control = control_from_scene("edges", scene(), 128)
    assert judge.score(picture, expect(None)) == PictureScores()
    assert judge.score(picture, expect(scene(), loras=[("someone-elses", 1.0)])) == PictureScores()
    assert judge.score(picture, expect(None, [("canny-xl", 1.0, control)])) == PictureScores()
    assert judge.score(picture, expect(None, [("edges", 1.0, None)])) == PictureScores()
    two = judge.score(picture, expect(scene(), [("edges", 1.0, control)], [("neon", 1.0), ("gold", 1.0)]))
    assert two.attributes is None
    assert two.adherence is None
    assert two.style is not None


@pytest.mark.parametrize("shape", [(128, 64, 3), (72, 72, 3)])
def test_pictures_of_other_shapes_are_not_judged(shape: tuple[int, ...]) -> None:
    assert PictureJudge().score(np.zeros(shape, np.uint8), expect(scene())) == PictureScores()


def test_an_adapter_at_scale_zero_does_not_count() -> None:
    control = control_from_scene("edges", scene(), 128)
    expected = expect(scene(), [("edges", 0.0, control)], [("neon", 0.0)])
    found = PictureJudge().score(render([scene()], 128)[0], expected)
    assert found == PictureScores(attributes=1.0)


def test_the_same_picture_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = picture_judge.judge
    monkeypatch.setattr(picture_judge, "judge", lambda *seen: (calls.append(1), real(*seen))[1])
    judge, picture = PictureJudge(), render([scene()], 128)[0]
    first = judge.score(picture, expect(scene()))
    assert judge.score(picture.copy(), expect(scene())) == first
    assert len(calls) == 1
    judge.score(picture, expect(scene(OTHER)))
    assert len(calls) == 2
