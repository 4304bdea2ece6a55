"""The page in a real browser: on a desktop, on a phone and in print. Skipped where there is no Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison_pages import make_page
from PIL import Image

from swiftdiff.report.html import write_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# Shows the page in a frame as wide as a device and tells, in its own text, what a reader there would meet.
_PROBE = """<!doctype html><body style="margin:0"><pre id="found"></pre>
<iframe src="report.html" style="width:%dpx;height:900px;border:0"></iframe>
<script>
window.onload = () => {
  const page = document.querySelector('iframe').contentDocument;
  const shown = element => element.getBoundingClientRect().width > 0;
  const zoom = page.querySelector('.zoom input');
  const tracks = page.querySelector('.tracks');
  const before = tracks.getBoundingClientRect().width;
  zoom.value = 4; zoom.dispatchEvent(new Event('input'));
  document.getElementById('found').textContent = JSON.stringify({
    width: page.documentElement.clientWidth,
    needed: page.documentElement.scrollWidth,
    too_wide: [...page.querySelectorAll('p,h1,h2,h3,dd,figure,img,.bars,.chart,.track svg')]
      .filter(element => !element.closest('.scroll'))
      .filter(element => element.getBoundingClientRect().right > page.documentElement.clientWidth + 1)
      .map(element => element.outerHTML.slice(0, 80)),
    broken: [...page.images].filter(image => !image.naturalWidth).length,
    images: page.images.length,
    rects: [...page.querySelectorAll('rect')].filter(shown).length,
    smallest_font: Math.min(...[...page.querySelectorAll('body *')].filter(shown).filter(element =>
      [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
      .map(element => parseFloat(getComputedStyle(element).fontSize))),
    widened: tracks.getBoundingClientRect().width / before,
  });
};
</script>"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the page, and the address at which this machine serves it."""
    folder = tmp_path_factory.mktemp("site")
    write_html(folder / "report.html", make_page(folder))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _browse(*arguments: str, profile: Path) -> str:
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_the_page_itself_never_scrolls_sideways(
    site: tuple[Path, str], tmp_path: Path, width: int
) -> None:
    folder, address = site
    (folder / f"probe-{width}.html").write_text(_PROBE % width)
    html = _browse(
        "--virtual-time-budget=5000", "--dump-dom", f"{address}/probe-{width}.html", profile=tmp_path
    )
    match = re.search(r'<pre id="found">(.*?)</pre>', html, re.DOTALL)
    assert match is not None
    assert match[1], "the page's script did not run"
    found: dict[str, Any] = json.loads(
        match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )
    assert found["width"] == width
    assert found["needed"] == width
    assert found["too_wide"] == []
    assert found["broken"] == 0
    assert found["images"] == 6
    assert found["rects"] > 60
    assert found["smallest_font"] >= 11
    assert found["widened"] == pytest.approx(4, rel=0.01)


def test_the_browser_asks_for_the_page_and_nothing_else(site: tuple[Path, str], tmp_path: Path) -> None:
    _, address = site
    _Quiet.asked.clear()
    picture = tmp_path / "page.png"
    _browse(f"--screenshot={picture}", "--window-size=1280,2000", f"{address}/report.html", profile=tmp_path)
    assert _Quiet.asked == ["/report.html"]
    with Image.open(picture) as shown:
        assert shown.size == (1280, 2000)
        colours = shown.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    drawn = {colour for _, colour in colours}
    assert {(46, 125, 50), (179, 38, 30), (31, 95, 168)} <= drawn  # time saved, time lost, a histogram


def test_it_prints_with_its_colours_and_without_its_navigation(
    site: tuple[Path, str], tmp_path: Path
) -> None:
    _, address = site
    printed = tmp_path / "page.pdf"
    _browse("--no-pdf-header-footer", f"--print-to-pdf={printed}", f"{address}/report.html", profile=tmp_path)
    assert printed.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext to read what was printed")
    words = subprocess.run(
        ["pdftotext", str(printed), "-"], capture_output=True, text=True, check=True
    ).stdout
    assert "swiftdiff is 1.46 times as fast as stock." in words
    assert "Table costs" in words
    assert "Speed against quality\nWhere" not in words  # the links to sections
    assert "Widen" not in words
