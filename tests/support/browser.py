"""Chromium for tests of pages, where there is one; patient, for a machine may stall for seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


@contextmanager
def launched() -> Iterator[Browser]:
    """Run the browser; skips the test without Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE_S * 1000
        )
        yield browser
        browser.close()


def new_page(browser: Browser, size: dict[str, int] = DESKTOP) -> Page:
    """Open a page that waits long for what must come."""
    page = browser.new_page(viewport=size)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_S * 1000)
    return page
