"""What a comparison's page says to a reader, to a screen reader, and that it asks nobody else."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from comparison_pages import NASTY, make_page, make_smallest_page, make_timeline
from PIL import Image

from swiftdiff.errors import StorageError
from swiftdiff.report.html import (
    Frontier,
    FrontierPoint,
    LatencyDistribution,
    PageSpan,
    RequestTimeline,
    WaterfallStep,
    write_html,
)
from swiftdiff.report.html_pictures import amplify

VOID = {"meta", "link", "img", "input"}


class Outline(HTMLParser):
    """Reads what matters of a page, and that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _write(page: object, folder: Path) -> str:
    path = folder / "report" / "report.html"
    write_html(path, page)  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = _write(make_page(tmp_path), tmp_path)
    outline = Outline(html)
    links = [attributes.get(key) for _, attributes in outline.elements for key in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links if link is not None)
    assert not re.search(r"https?:|url\(|@import", html)
    targets = {attributes.get("id") for _, attributes in outline.elements}
    assert all(link[1:] in targets for link in links if link is not None and link.startswith("#"))


def test_what_others_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    html = _write(make_page(tmp_path), tmp_path)
    outline = Outline(html)
    assert len(outline.all("script")) == 1
    assert "".join(outline.text).count(NASTY) == 5  # title, heading, warning, fact, prompt
    assert "<script>alert" not in html


def test_a_screen_reader_finds_headings_captions_and_words_for_pictures(tmp_path: Path) -> None:
    outline = Outline(_write(make_page(tmp_path), tmp_path))
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("h1")) == 1
    tables = len(outline.all("table"))
    assert tables == len(outline.all("caption")) > 5
    assert len(outline.all("img")) == 6
    assert all(image["alt"] for image in outline.all("img"))
    assert all("role" in drawing or "aria-hidden" in drawing for drawing in outline.all("svg"))
    assert all(drawing["aria-label"] for drawing in outline.all("svg") if drawing.get("role") == "img")
    assert all(head["scope"] in ("row", "col") for head in outline.all("th"))
    levels = [int(name[1]) for name, _ in outline.elements if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_given_once(tmp_path: Path) -> None:
    outline = Outline(_write(make_page(tmp_path), tmp_path))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 8


def test_what_a_comparison_does_not_have_is_left_out(tmp_path: Path) -> None:
    outline = Outline(_write(make_smallest_page(), tmp_path))
    assert [heading["id"] for heading in outline.all("h2")] == ["result"]


def test_pictures_that_cannot_be_read_or_compared_are_said_so(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "before.png").read_bytes()[:60])
    pair = page.pictures[0]
    others = tuple(replace(pair, other=tmp_path / name) for name in ("small.png", "torn.png", "gone.png"))
    words = "".join(Outline(_write(replace(page, pictures=others), tmp_path)).text)
    assert words.count("The pictures cannot be shown") == 3
    assert "small.png is (10, 10), the baseline's is (96, 64)" in words


def test_a_difference_is_multiplied_until_it_is_seen_and_says_by_what() -> None:
    before = Image.fromarray(np.full((2, 2, 3), 100, np.uint8))
    pixels = np.full((2, 2, 3), 100, np.uint8)
    pixels[0, 0] = (95, 100, 102)
    difference, factor, largest = amplify(before, Image.fromarray(pixels))
    assert (factor, largest) == (51, 5)
    assert difference.getpixel((0, 0)) == (255, 0, 102)
    assert amplify(before, before)[2] == 0


@pytest.mark.parametrize("seconds", [(0.0,), (1.0,), (1.0, 1.0, 1.0), ()])
def test_one_request_or_none_is_drawn_too(tmp_path: Path, seconds: tuple[float, ...]) -> None:
    page = replace(make_smallest_page(), distributions=(LatencyDistribution("stock", seconds),))
    html = _write(page, tmp_path)
    assert ("Latency from arrival to delivery" in html) == bool(seconds)


def test_a_frontier_of_one_point_and_a_waterfall_of_nothing_are_drawn_too(tmp_path: Path) -> None:
    page = replace(
        make_smallest_page(),
        frontiers=(Frontier("k", "SSIM", (FrontierPoint("k=0", 0.0, 0.0),)), Frontier("m", "SSIM", ())),
        waterfall=(WaterfallStep("stock", 0.0),),
    )
    outline = Outline(_write(page, tmp_path))
    assert [heading["id"] for heading in outline.all("h2")] == ["result", "ablation", "speed-against-quality"]


def test_steps_that_follow_each_other_share_a_strip_and_nested_work_lies_below(tmp_path: Path) -> None:
    page = replace(make_smallest_page(), timelines=(make_timeline("swiftdiff"),))
    outline = Outline(_write(page, tmp_path))
    heights = {
        str(drawing["aria-label"]).partition(":")[0]: drawing["height"]
        for drawing in outline.all("svg")
        if "viewbox" in drawing and drawing.get("preserveaspectratio") == "none"
    }
    assert heights == {
        "request": "14",
        "server": "28",
        "lane cpu": "14",
        "swiftdiff-load lora_0": "14",
    }


def test_time_in_the_queue_does_not_press_the_rest_together(tmp_path: Path) -> None:
    page = replace(make_smallest_page(), timelines=(make_timeline("stock", 1000.0),))
    html = _write(page, tmp_path)
    assert "of it 1000.000 s in the queue" in html
    ticks = re.search(r'class="ticks">(.*?)</div>', html)
    assert ticks is not None
    assert re.findall(r"<span>(.*?) s</span>", ticks[1]) == ["-0.20", "0.40", "1.00"]


def test_a_request_with_very_many_spans_is_cut_and_says_so(tmp_path: Path) -> None:
    spans = tuple(PageSpan("server", "step", i / 100, (i + 1) / 100, {"step": i}) for i in range(5000))
    page = replace(make_smallest_page(), timelines=(RequestTimeline("stock", "r", 50.0, spans),))
    html = _write(page, tmp_path)
    assert "1000 more spans are in the run" in html
    assert html.count("<rect") == 4000


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html"):
        write_html(tmp_path / "report.html", make_smallest_page())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_html(tmp_path / "file" / "report.html", make_smallest_page())


def test_systems_are_joined_only_where_no_other_one_beats_them(tmp_path: Path) -> None:
    points = tuple(
        FrontierPoint(label, seconds, quality)
        for label, seconds, quality in (
            ("slow", 3, 0.9),
            ("good", 2, 1.0),
            ("quick", 1, 0.5),
            ("bad", 2, 0.4),
        )
    )
    shown = Frontier("t", "SSIM", points, seconds_name="mean seconds of service", is_ordered=False)
    for frontier, joined in ((shown, 2), (replace(shown, is_ordered=True), 4)):
        html = _write(replace(make_smallest_page(), frontiers=(frontier,)), tmp_path)
        line = re.search(r'<polyline points="(.*?)"', html)
        assert line is not None
        assert len(line[1].split()) == joined
        assert html.count("<circle") == 4
        assert html.count("mean seconds of service") == 2


def test_rounding_of_pictures_does_not_look_like_a_slope(tmp_path: Path) -> None:
    points = (FrontierPoint("a", 1.0, 0.999998, 0.999997, 0.999999), FrontierPoint("b", 2.0, 1.0))
    page = replace(make_smallest_page(), frontiers=(Frontier("t", "SSIM", points),))
    html = _write(page, tmp_path)
    heights = [float(found) for found in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', html)]
    assert heights[0] == pytest.approx(heights[1], abs=1)
    ticks = re.findall(r'text-anchor="end">([\d.]+)<', html)
    assert len(ticks) == len(set(ticks)) > 2


def test_a_note_does_not_look_like_a_warning(tmp_path: Path) -> None:
    page = replace(make_smallest_page(), warnings=("Note: one.", "NOT COMPARABLE: two."))
    outline = Outline(_write(page, tmp_path))
    assert [words.get("class") for words in outline.all("p")][:2] == ["remark", "warning"]
