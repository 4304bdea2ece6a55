"""The page against the real server with the shipped model, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser import launched, needs_browser, new_page
from http_server import Running, running
from patience import until

from swiftdiff.config import load_config
from swiftdiff.resources import path as resource
from swiftdiff.systems import build_system

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = needs_browser


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    config = load_config(resource("configs/swiftdiff.toml"))
    quick = config.swiftdiff.model_copy(update={"graph_replay": False, "tuned_kernels": False})
    folder = tmp_path_factory.mktemp("server")
    with running(folder, config.model_copy(update={"swiftdiff": quick}), build_system) as server:
        yield server


@pytest.fixture(scope="module")
def page(real: Running) -> Iterator[Page]:
    with launched() as browser:
        page = new_page(browser)
        page.set_default_timeout(300_000)
        page.goto(real.url)
        page.get_by_text("Model shapes, served by swiftdiff").wait_for()
        page.get_by_text("Size, steps").click()
        page.get_by_label("Steps", exact=True).fill("4")
        page.locator(".card img").nth(7).wait_for()  # the last thumbnail: no more requests but those of tests
        yield page


def draw(page: Page) -> None:
    page.get_by_role("button", name="Draw the picture").click()
    page.locator("#status").get_by_text("Done:").wait_for()


def drawn_side(page: Page) -> int:
    return int(page.locator("#pictures img").first.evaluate("image => image.naturalWidth"))


def test_loras_have_thumbnails_drawn_by_the_model(page: Page) -> None:
    widths = page.locator(".card img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [128] * 8


def test_a_prompt_becomes_a_picture(page: Page, real: Running) -> None:
    page.get_by_label("Prompt", exact=True).fill("a large green circle in the middle on a sand background")
    page.get_by_label("Seed").fill("3")
    draw(page)
    assert drawn_side(page) == 128
    assert page.get_by_role("rowheader", name="denoise").is_visible()
    record = real.records()[-1]["record"]
    assert (record["status"], record["num_inference_steps"]) == ("ok", 4)


def test_lora_control_image_and_switches_are_served_as_by_stock(page: Page, real: Running) -> None:
    page.get_by_label("neon", exact=True).check()
    page.get_by_label("What the picture follows").select_option("edges")
    page.locator("#canvas").focus()
    page.keyboard.press("Space")
    page.get_by_label("The two halves of guidance at the same time").uncheck()
    page.get_by_label("Serve it by stock diffusers too").check()
    draw(page)
    page.get_by_role("heading", name=re.compile("times as (fast|slow) as stock diffusers")).wait_for()
    apart = re.search(r"more than (\d+) of 255", page.locator("#verdict").inner_text())
    assert apart is not None
    assert int(apart[1]) <= 1
    assert page.get_by_role("rowheader", name="load LoRA neon").is_visible()
    ours, stock = (entry["record"] for entry in real.records()[-2:])
    assert ours["loras"] == stock["loras"] == ["neon"]
    assert ours["controlnets"] == stock["controlnets"] == ["edges"]


def test_a_refusal_is_told_and_the_next_request_served(page: Page) -> None:
    page.get_by_label("Serve it by stock diffusers too").uncheck()
    side = page.get_by_label("Side in pixels")
    side.evaluate("input => input.removeAttribute('max')")
    side.fill("4096")
    page.get_by_role("button", name="Draw the picture").click()
    page.get_by_role("alert").get_by_text("must be at most 2048").wait_for()
    assert page.evaluate("document.activeElement.id") == "side"
    side.fill("64")
    draw(page)
    assert drawn_side(page) == 64


def test_stopping_a_request_lets_the_next_one_in(page: Page, real: Running) -> None:
    page.get_by_label("Steps", exact=True).fill("9")
    with real.held_before(7):
        page.get_by_role("button", name="Draw the picture").click()
        page.locator("#status").get_by_text(re.compile(r"step \d of 9")).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        until(lambda: real.records()[-1].get("code") == "client_left")
    page.get_by_label("Steps", exact=True).fill("2")
    draw(page)
    assert real.records()[-1]["record"]["status"] == "ok"
