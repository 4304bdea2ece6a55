"""The page in a real browser, on a desktop and on a phone. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import DESKTOP, PHONE, launched, needs_browser, new_page
from page_audits import faint_texts, misfits, nameless_fields
from page_server import ADAPTERS, MODELS, PAGE, PageServer, how, page_server
from patience import PATIENCE_S, until
from PIL import Image

from swiftdiff.scenes.scene import BACKGROUNDS, COLOURS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[PageServer]:
    with page_server() as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: PageServer) -> Iterator[Page]:
    page = new_page(browser)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if "violates" in line.text else None)
    page.goto(server.url)
    page.get_by_text("served by swiftdiff").wait_for()
    yield page
    page.close()
    assert complaints == []


def draw(page: Page) -> None:
    page.get_by_role("button", name="Draw the picture").click()


def shown_colour(image: Locator) -> list[int]:
    return list(
        image.evaluate(
            """image => { const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
            const context = canvas.getContext('2d'); context.drawImage(image, 0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); }"""
        )
    )


def control_image(server: PageServer) -> Image.Image:
    (use,) = server.bodies[-1]["controlnets"]
    return Image.open(io.BytesIO(base64.b64decode(use["image"]))).convert("RGB")


def test_the_page_leads_to_live_worlds_where_there_are_some(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = page.get_by_role("link", name="Live worlds")
    assert link.count() == 0
    monkeypatch.setitem(MODELS["swiftdiff"], "worlds", True)
    page.reload()
    link.wait_for()
    assert link.get_attribute("href") == "world/"


def test_a_prompt_becomes_a_picture_with_its_timeline(page: Page, server: PageServer) -> None:
    page.get_by_label("Prompt", exact=True).fill("a small green star on a slate background")
    draw(page)
    page.get_by_text("Done: swiftdiff took 610 ms.").wait_for()
    picture = page.get_by_role("img", name="a small green star on a slate background")
    assert shown_colour(picture) == [200, 40, 40]
    (body,) = server.bodies
    assert body["prompt"] == "a small green star on a slate background"
    assert (body["size"], body["num_inference_steps"], body["guidance_scale"]) == ("128x128", 20, 4.5)
    table = page.get_by_role("table", name="swiftdiff: 610 ms")
    rows = table.locator("tbody tr").all_inner_texts()
    assert [re.sub(r"\s+", " ", row).strip() for row in rows] == [
        "load LoRA neon (from the store, patched in before step 3) 50",
        "wait in the queue 10",
        "wait for LoRAs 30",
        "patch LoRAs in 10",
        "encode the prompt 20",
        "denoise 500",
        "decode the picture 40",
    ]
    assert table.get_by_role("img", name="from 70 to 570 ms").is_visible()


def test_the_picture_grows_and_progress_is_told_now_and_then(page: Page, server: PageServer) -> None:
    turns = threading.Semaphore(0)
    server.before_step = lambda: turns.acquire(timeout=PATIENCE_S)
    page.evaluate(
        """() => { window.seen = new Set(); window.said = [];
        new MutationObserver(() => document.querySelectorAll('#pictures img').forEach(i => seen.add(i.src)))
          .observe(document.getElementById('pictures'), {subtree: true, attributes: true});
        const status = document.getElementById('status');
        new MutationObserver(() => said.push(status.textContent)).observe(status, {childList: true}); }"""
    )
    draw(page)
    page.locator("#pictures figure").wait_for()
    assert not page.locator("#pictures img").is_visible()
    for number in range(1, 9):
        turns.release()
        until(lambda number=number: page.evaluate("seen.size") >= number)  # type: ignore[misc]
    page.get_by_text("Done:").wait_for()
    assert page.evaluate("seen.size") == 9  # eight unfinished pictures and the last
    said = page.evaluate("said")
    assert 3 <= len(said) <= 7
    assert "step" in said[1]


def test_the_same_request_is_shown_beside_stock(page: Page, server: PageServer) -> None:
    page.get_by_label("Serve it by stock diffusers too").check()
    draw(page)
    page.get_by_role("heading", name="swiftdiff was 2.0 times as fast as stock diffusers").wait_for()
    assert page.get_by_text("No value of the two pictures is more than 1 of 255 apart.").is_visible()
    ours, stock = server.bodies
    assert stock["swiftdiff"] == {"engine": "diffusers"}
    assert ours["seed"] == stock["seed"]
    ours, stock = (
        page.get_by_role("table", name=name).locator("i.denoise")
        for name in ("swiftdiff: 610 ms", "stock diffusers: 1,210 ms")
    )
    assert stock.bounding_box()["width"] == pytest.approx(2 * ours.bounding_box()["width"], rel=0.02)


def test_waiting_behind_others_makes_nobody_slower_in_the_comparison(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(body: dict[str, Any]) -> dict[str, Any]:
        told = how(body)
        wait_s = 0.0 if (body.get("swiftdiff") or {}).get("engine") else 3.0
        return told | {name: told[name] + wait_s for name in ("latency_s", "queue_wait_s")}

    monkeypatch.setattr("page_server.how", waited)
    page.get_by_label("Serve it by stock diffusers too").check()
    draw(page)
    page.get_by_role("heading", name="swiftdiff was 2.0 times as fast as stock diffusers").wait_for()


def test_loras_and_switches_go_along(page: Page, server: PageServer) -> None:
    page.locator(".card img").nth(len(ADAPTERS["loras"]) - 1).wait_for()  # they are drawn one after another
    page.get_by_label("neon", exact=True).check()
    page.get_by_label("Scale of neon").fill("0.7")
    page.get_by_label("The two halves of guidance at the same time").uncheck()
    page.get_by_label("Steps that may begin").fill("5")
    draw(page)
    page.get_by_text("Done:").wait_for()
    (body,) = server.bodies
    assert body["loras"] == [{"id": "neon", "scale": 0.7}]
    assert body["swiftdiff"] == {
        "switches": {
            "latent_parallelism": False,
            "controlnet_offload": True,
            "reuse_invariants": True,
            "bal_k": 5,
        }
    }


def test_thumbnails_are_asked_for_again_when_the_server_was_busy(
    browser: Browser, server: PageServer
) -> None:
    server.busy = 2
    page = new_page(browser)
    page.clock.install()
    page.goto(server.url)
    page.get_by_text("served by swiftdiff").wait_for()

    def all_drawn() -> bool:
        page.clock.fast_forward(5000)
        return page.locator(".card img").count() == 3

    until(all_drawn)
    page.close()


def test_a_control_image_is_drawn_by_pointer(page: Page, server: PageServer) -> None:
    page.get_by_label("What the picture follows").select_option("edges")
    page.get_by_label("Tool").select_option("pen")
    canvas = page.locator("#canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    draw(page)
    page.get_by_text("Done:").wait_for()
    image = control_image(server)
    assert image.size == (128, 128)
    assert all(max(image.getpixel((x, y))[0] for y in range(62, 67)) > 150 for x in range(15, 112))
    assert image.getpixel((64, 20)) == (0, 0, 0)


def test_a_control_image_is_drawn_by_keyboard_alone_and_undone(page: Page, server: PageServer) -> None:
    page.get_by_label("What the picture follows").select_option("layout")
    page.get_by_label("Colour", exact=True).select_option(label="red")
    canvas = page.locator("#canvas")
    canvas.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    status = page.locator("#canvas-status")
    assert status.inner_text() == "Set a circle, red, at 34 % from the left, 50 % from the top."
    assert page.locator("#crosshair").is_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Undo").click()
    draw(page)
    page.get_by_text("Done:").wait_for()
    image = control_image(server)
    assert image.getpixel((44, 64)) == COLOURS["red"]
    assert image.getpixel((100, 100)) == BACKGROUNDS["sand"]


def test_a_control_image_is_uploaded(page: Page, server: PageServer, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    Image.new("RGB", (20, 30), (9, 8, 7)).save(file)
    page.get_by_label("What the picture follows").select_option("depth")
    page.get_by_label("Upload it").check()
    page.get_by_label("Control image (PNG").set_input_files(file)
    page.get_by_role("img", name="Control image mine.png").wait_for()
    page.get_by_label("Ends after").fill("0.5")
    draw(page)
    page.get_by_text("Done:").wait_for()
    (use,) = server.bodies[-1]["controlnets"]
    assert base64.b64decode(use["image"]) == file.read_bytes()
    assert (use["id"], use["scale"], use["start"], use["end"]) == ("depth", 1, 0, 0.5)


def test_colours_for_layouts_are_those_of_the_model() -> None:
    script = (PAGE / "sketch.js").read_text()
    block = re.search(r"const LAYOUT = \{(.*?)\};", script, re.DOTALL)
    assert block is not None
    drawn = dict(re.findall(r"(\w+): \"#([0-9a-f]{6})\"", block[1]))
    assert {name: tuple(bytes.fromhex(rgb)) for name, rgb in drawn.items()} == COLOURS | BACKGROUNDS


def test_nothing_to_follow_is_told_before_anything_is_sent(page: Page, server: PageServer) -> None:
    page.get_by_label("What the picture follows").select_option("edges")
    draw(page)
    assert page.get_by_role("alert").inner_text() == "Draw a control image, or choose no ControlNet."
    assert page.evaluate("document.activeElement.id") == "canvas"
    assert server.bodies == []


def test_a_refusal_is_told_in_the_servers_words_at_its_field(page: Page, server: PageServer) -> None:
    error = {"message": "seed must be at least 0", "type": "x", "param": "seed", "code": None}
    server.refusal = (400, {"error": error})
    draw(page)
    alert = page.get_by_role("alert")
    alert.get_by_text("seed must be at least 0").wait_for()
    seed = page.get_by_label("Seed")
    assert seed.is_visible()  # its part of the form has opened
    assert seed.get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "seed"
    server.refusal = None
    draw(page)
    page.get_by_text("Done:").wait_for()
    assert alert.count() == 0
    assert seed.get_attribute("aria-invalid") is None


def test_markup_in_a_refusal_is_text(page: Page, server: PageServer) -> None:
    server.refusal = (400, {"error": {"message": "<img src=x onerror=alert(1)>", "type": "x"}})
    draw(page)
    page.get_by_role("alert").get_by_text("<img src=x").wait_for()


def test_stop_ends_the_request_at_the_server_too(page: Page, server: PageServer) -> None:
    server.never_ends = True
    draw(page)
    page.get_by_text("step").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert server.broke_off.wait(PATIENCE_S)
    assert page.get_by_role("button", name="Draw the picture").is_enabled()


def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    with page_server() as server:
        page = new_page(browser)
        page.goto(server.url)
        page.get_by_text("served by swiftdiff").wait_for()
    draw(page)
    page.get_by_role("alert").get_by_text("the server does not answer").wait_for()
    page.close()


def test_a_key_is_asked_for_and_sent(browser: Browser, server: PageServer) -> None:
    server.key = "open sesame"
    page = new_page(browser)
    page.goto(server.url)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Use key").click()
    page.get_by_role("alert").get_by_text("a valid API key is needed").wait_for()
    page.get_by_label("API key").fill("open sesame")
    page.get_by_role("button", name="Use key").click()
    page.get_by_text("served by swiftdiff").wait_for()
    page.locator(".card img").first.wait_for()
    draw(page)
    page.get_by_text("Done:").wait_for()
    assert "sesame" not in page.content()
    page.close()


def test_the_keyboard_reaches_everything_in_the_order_of_reading(page: Page) -> None:
    page.get_by_label("What the picture follows").select_option("edges")
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.value || ''")
        if name == "submit":
            break
        reached.append(name)
    wanted = [
        "prompt",
        "ink",
        "neon",
        "watercolour",
        "controlnet",
        "draw",
        "tool",
        "colour",
        "breadth",
        "canvas",
    ]
    wanted += ["undo", "clear", "control-scale", "control-start", "control-end", "switch-latent_parallelism"]
    wanted += ["switch-bal_k", "grow", "compare"]
    assert [name for name in reached if name in wanted] == wanted
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("Draw a control image").wait_for()


def test_every_field_has_a_name_that_is_spoken(page: Page) -> None:
    page.get_by_label("What the picture follows").select_option("edges")
    page.locator("form details summary").click()
    nameless = nameless_fields(page)
    assert nameless == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen_or_too_small_to_read_or_hit(
    browser: Browser, server: PageServer, size: dict[str, int]
) -> None:
    page = new_page(browser, size)
    page.goto(server.url)
    page.get_by_text("served by swiftdiff").wait_for()
    page.get_by_label("neon", exact=True).check()
    page.get_by_label("What the picture follows").select_option("layout")
    page.get_by_label("Tool").select_option("fill")
    page.locator("#canvas").click()
    page.get_by_label("Serve it by stock diffusers too").check()
    draw(page)
    page.get_by_text("times as fast").wait_for()
    page.get_by_text("This request for a program").click()
    found = misfits(page)
    assert found == {"needed": size["width"], "wide": [], "small": [], "low": []}
    page.close()


def test_texts_stand_out_from_their_ground(page: Page) -> None:
    draw(page)
    page.get_by_text("Done:").wait_for()
    faint = faint_texts(page)
    assert faint == []  # WCAG 2.2, 1.4.3


def test_the_command_shown_is_a_body_that_the_server_takes(page: Page) -> None:
    schema = pytest.importorskip("swiftdiff.server.schema")
    page.get_by_label("Prompt", exact=True).fill("it's a star")
    page.get_by_label("neon", exact=True).check()
    draw(page)
    page.get_by_text("Done:").wait_for()
    page.get_by_text("This request for a program").click()
    command = page.locator("#command").inner_text()
    body = re.search(r"-d '(.*)'$", command, re.DOTALL)
    assert body is not None
    text = body[1].replace("'\\''", "'")
    assert schema.GenerationRequest.model_validate_json(text).prompt == "it's a star"
    assert json.loads(text)["loras"] == [{"id": "neon", "scale": 1}]
