"""Quality is measured from run folders as they lie on disk; a broken system must not pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from run_folders import Served, make_run, served

from swiftdiff.adapters.mapping import count_uses, map_adapters
from swiftdiff.adapters.mapping_file import read_rule
from swiftdiff.compare.quality import measure_quality
from swiftdiff.config import ServingConfig
from swiftdiff.engine.run_info import MappedAdapters
from swiftdiff.errors import ConfigError, ModelError, StorageError
from swiftdiff.quality.verdict import verdict_of
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.scenes import control_from_scene, parse_caption, render, render_style
from swiftdiff.trace import trace_sha256
from swiftdiff.trace.writer import write_trace

CAPTION = "a large red circle above a small blue square on a sand background"
SCENE = parse_caption(CAPTION)
assert SCENE is not None
PLAIN = Image.fromarray(render([SCENE], 128)[0])
NEON = Image.fromarray(render_style("neon", [SCENE], 128)[0])


def with_pictures(request_id: str, *pictures: Image.Image, **fields: object) -> Served:
    record, _ = served(request_id, 1.0, num_images=max(1, len(pictures)), **fields)
    return record, list(pictures)


class Folders:
    """Runs of one trace on the embedded model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info: dict[str, object] = {"model": "shapes"}

    def trace(self, *requests: ImageRequest) -> None:
        path = self.root / "trace.jsonl"
        write_trace(path, requests)
        self.info |= {"trace": str(path), "trace_sha256": trace_sha256(path)}

    def run(self, name: str, *requests: Served, **info: object) -> Path:
        config = ServingConfig(name=name, engine="diffusers", model="shapes")
        return make_run(self.root / name, requests, config=config, **(self.info | info))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.trace(*(ImageRequest(request_id=name, timestamp=0, prompt=CAPTION) for name in "abc"))
    return made


def test_pictures_are_paired_by_request_and_index(folders: Folders) -> None:
    before = folders.run("stock", with_pictures("a", PLAIN, NEON), with_pictures("b", NEON))
    after = folders.run("mine", with_pictures("b", NEON), with_pictures("a", PLAIN, NEON))
    report = measure_quality(before, after)
    assert (report.baseline, report.system) == ("stock", "mine")
    assert [(each.request_id, each.index) for each in report.pictures] == [("a", 0), ("a", 1), ("b", 0)]
    assert (report.identical, report.unpaired) == (3, 0)
    assert verdict_of(report).text == "identical pictures (3)"


def test_repeats_are_pooled_and_drawn_by_request(folders: Folders) -> None:
    before = folders.run("stock", *(with_pictures(name, PLAIN) for name in "abc"))
    one = folders.run("one", *(with_pictures(name, PLAIN) for name in "abc"))
    two = folders.run("two", *(with_pictures(name, NEON) for name in "abc"))
    report = measure_quality(before, one, two)
    assert [(each.request_id, each.repeat) for each in report.pictures][:3] == [("a", 0), ("a", 1), ("b", 0)]
    assert report.ssim is not None
    assert report.ssim.count == 6
    assert report.ssim.low == pytest.approx(report.ssim.high)  # every request has one of each


def test_what_only_one_served_or_nobody_can_read_is_counted_and_named(folders: Folders) -> None:
    before = folders.run("stock", *(with_pictures(name, PLAIN, PLAIN) for name in "abc"))
    after = folders.run("mine", with_pictures("a", PLAIN), with_pictures("b", PLAIN, PLAIN))
    (after / "images/b-0.png").write_bytes(b"not a picture")
    Image.new("RGB", (64, 128)).save(after / "images/b-1.png")
    report = measure_quality(before, after)
    assert len(report.pictures) == 1
    assert report.unpaired == 1 + 2 + 2  # of a, of b and of c
    assert "b-0.png cannot be read" in report.problems[0]
    assert "b-1.png is 64×128, the baseline's is 128×128" in report.problems[1]
    assert verdict_of(report).text == "identical pictures (1); 5 pictures without a pair"


def test_runs_without_a_common_picture_are_flagged(folders: Folders) -> None:
    before = folders.run("stock", with_pictures("a", PLAIN))
    assert verdict_of(measure_quality(before, folders.run("mine", with_pictures("b", PLAIN)))).is_flagged


def test_warm_ups_and_failures_do_not_count(folders: Folders) -> None:
    before = folders.run("stock", *(with_pictures(name, PLAIN) for name in "abc"))
    after = folders.run(
        "mine",
        with_pictures("a", NEON, warmup=True),
        with_pictures("b", status="failed", error="no", error_kind="AdapterError"),
        with_pictures("c", PLAIN),
    )
    report = measure_quality(before, after)
    assert [each.request_id for each in report.pictures] == ["c"]
    assert report.unpaired == 2


def test_only_what_can_be_judged_is(folders: Folders, tmp_path: Path) -> None:
    Image.fromarray(control_from_scene("edges", SCENE, 128)).save(tmp_path / "edges.png")
    edges = ControlNetUse(id="edges", image="edges.png")
    folders.trace(
        ImageRequest(request_id="plain", timestamp=0, prompt=CAPTION),
        ImageRequest(request_id="edges", timestamp=0, prompt=CAPTION, controlnets=(edges,)),
        ImageRequest(request_id="free", timestamp=0, prompt="a cat on a mat", controlnets=(edges,)),
        ImageRequest(request_id="neon", timestamp=0, prompt=CAPTION, loras=(LoraUse(id="neon"),)),
    )
    names = ("plain", "edges", "free", "neon")
    before = folders.run("stock", *(with_pictures(name, PLAIN) for name in names))
    after = folders.run("mine", *(with_pictures(name, NEON) for name in names))
    report = measure_quality(before, after)
    counts = {each.name: (each.judged, each.not_judged) for each in report.scores}
    assert counts == {"attributes": (3, 1), "adherence": (2, 2), "style": (1, 3)}
    (style,) = [each.change for each in report.scores if each.name == "style"]
    assert style is not None
    assert style.value > 0.8


@pytest.mark.parametrize("how", ["alias", "popularity"])
def test_the_weights_behind_a_foreign_id_say_which_style_is_expected(
    folders: Folders, tmp_path: Path, how: str
) -> None:
    request = ImageRequest(request_id="a", timestamp=0, prompt=CAPTION, loras=(LoraUse(id="user/42"),))
    folders.trace(request)
    mapping = map_adapters(
        read_rule(how), count_uses([request]), {"controlnet": [], "lora": ["neon"]}, "somewhere"
    )
    mapped = MappedAdapters(how=how, sha256=mapping.sha256, description="")
    before, after = (
        folders.run(name, with_pictures("a", picture), mapped_adapters=mapped)
        for name, picture in (("stock", NEON), ("mine", PLAIN))
    )
    for run in (before, after):
        (run / "adapters.json").write_text(mapping.model_dump_json())
    style = measure_quality(before, after).scores[-1]
    assert style.judged == 1
    assert style.change is not None
    assert style.change.value < -0.8


def test_without_its_trace_a_run_is_compared_by_pixels_alone(folders: Folders) -> None:
    before, after = (folders.run(name, with_pictures("a", PLAIN)) for name in ("stock", "mine"))
    (folders.root / "trace.jsonl").write_text("changed\n")
    report = measure_quality(before, after)
    assert "no longer the trace" in report.notes[0]
    assert report.identical == 1
    assert all(each.judged == 0 for each in report.scores)


def test_pictures_of_other_models_are_not_judged(folders: Folders) -> None:
    before, after = (
        folders.run(name, with_pictures("a", PLAIN), model="sdxl-thin") for name in ("stock", "mine")
    )
    report = measure_quality(before, after)
    assert report.notes == ("judges know pictures of shapes only, not of sdxl-thin",)
    assert all(each.judged == 0 for each in report.scores)


def test_folders_that_are_no_runs_are_refused(folders: Folders, tmp_path: Path) -> None:
    before = folders.run("stock", with_pictures("a", PLAIN))
    with pytest.raises(StorageError, match="no run's folder"):
        measure_quality(before, tmp_path)
    with pytest.raises(ConfigError, match="at least one run"):
        measure_quality(before)


def test_a_metric_without_its_weights_is_refused_before_any_picture_is_read(folders: Folders) -> None:
    before = folders.run("stock", with_pictures("a", PLAIN))
    with pytest.raises(ModelError, match="FID needs"):
        measure_quality(before, before, references=["fid"], weights=folders.root)
    with pytest.raises(ConfigError, match="quality metric is 'vibes'"):
        measure_quality(before, before, references=["vibes"])
