"""The page with sliders in a real browser: Chromium or Chrome by Playwright. Needs nbnet[docs], playwright, and a browser."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
from test_site import site as site

playwright_api = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).parents[1]
FRAMES = json.loads((ROOT / "docs" / "learn" / "moving-statistics.json").read_text(encoding="utf-8"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with playwright_api.sync_playwright() as playwright:
        try:
            options = {"executable_path": BROWSER} if BROWSER else {"channel": "chrome"}
            launched = playwright.chromium.launch(args=["--no-sandbox"], **options)
        except playwright_api.Error:
            pytest.skip("no browser")
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, address, request):
    """The page, and what went wrong on it: errors, and requests that failed or went elsewhere."""
    wrong = []
    options = {"viewport": {"width": 1200, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda failed: wrong.append(failed.url))
    page.on("request", lambda sent: None if sent.url.startswith((address, "data:", "blob:")) else wrong.append(sent.url))
    page.goto(f"{address}/learn/moving-statistics/")
    page.wait_for_selector("#moving-statistics path.moving")
    yield page, wrong
    context.close()


def drawn(page):
    """Of each chart the last point of the line, in units of the chart, and the number of dots."""
    return page.evaluate("""() => [...document.querySelectorAll("#moving-statistics svg")].map((svg) => {
        const ticks = [...svg.querySelectorAll("line.grid")].map((line) => Number(line.getAttribute("y1")));
        const values = [...svg.querySelectorAll("text")].slice(0, ticks.length).map((text) => Number(text.textContent));
        const last = Number(svg.querySelector("path.moving").getAttribute("d").split("L").at(-1).split(" ")[1]);
        const n = ticks.length - 1;
        const value = values[0] + (last - ticks[0]) / (ticks[n] - ticks[0]) * (values[n] - values[0]);
        return [value, svg.querySelectorAll("circle").length];
    })""")


def move(page, **positions):
    for name, value in positions.items():
        slider = page.locator(f"#moving-statistics input[name={name}]")
        slider.focus()
        page.keyboard.press("Home")
        for _ in range(FRAMES[name].index(value)):
            page.keyboard.press("ArrowRight")
        shown = slider.evaluate("input => input.parentElement.querySelector('output').textContent")
        assert float(shown) == value


@pytest.mark.parametrize("position", [(8, 0.9, 1e-5), (2, 0.5, 1.0), (128, 0.999, 0.001), (32, 0.0, 0.1)], ids=str)
def test_the_charts_show_the_frame_that_the_sliders_say(opened, position):
    page, wrong = opened
    move(page, **dict(zip(("batch", "decay", "eps"), position)))
    b, d, e = (FRAMES[name].index(value) for name, value in zip(("batch", "decay", "eps"), position))
    lines = FRAMES["averages"][b][d]
    expected = [lines["mean"][-1], lines["variance"][-1], lines["spread"][e][-1]]
    steps = [FRAMES["steps"], FRAMES["steps"], FRAMES["steps"] // FRAMES["every"]]
    for (value, dots), end, count in zip(drawn(page), expected, steps, strict=True):
        assert value == pytest.approx(end / FRAMES["unit"], abs=0.02)
        assert dots == count
    said = page.locator("#moving-statistics p").inner_text()
    assert f"After 120 batches: moving mean {lines['mean'][-1] / 1000:.2f}"[:-1] in said
    assert wrong == []


PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("opened", [PHONE | {"color_scheme": scheme} for scheme in ("light", "dark")], indirect=True, ids=["light", "dark"])
def test_on_a_phone(opened):
    page, wrong = opened
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    width = page.locator("#moving-statistics svg").first.bounding_box()["width"]
    assert 300 < width <= 390
    assert page.locator("#moving-statistics input").first.bounding_box()["width"] > 150
    colours = page.evaluate("""() => { const of = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
        return [of("body", "backgroundColor"), of("#moving-statistics text", "fill"), of("#moving-statistics .moving", "stroke")]; }""")
    light = [sum(map(float, colour.split("(")[1].rstrip(")").split(",")[:3])) for colour in colours]
    assert abs(light[0] - light[1]) > 250, f"text {colours[1]} on {colours[0]}"
    assert abs(light[0] - light[2]) > 100, f"line {colours[2]} on {colours[0]}"
    slider = page.locator("#moving-statistics input[name=decay]").bounding_box()
    before = drawn(page)
    page.touchscreen.tap(slider["x"] + slider["width"] - 8, slider["y"] + slider["height"] / 2)
    assert drawn(page) != before
    assert wrong == []


def test_without_the_frames_the_page_says_so(browser, address):
    page = browser.new_page()
    page.route("**/moving-statistics.json", lambda route: route.abort())
    page.goto(f"{address}/learn/moving-statistics/")
    page.wait_for_selector("#moving-statistics p")
    assert "could not be loaded" in page.locator("#moving-statistics").inner_text()
    page.close()


def test_answers_are_folded_and_rendered(browser, address):
    page = browser.new_page()
    page.goto(f"{address}/learn/batchnorm/gradient/")
    answer = page.locator("details")
    assert not answer.locator("pre").first.is_visible()
    answer.locator("summary").click()
    assert answer.locator("pre").first.is_visible()
    assert answer.locator("math").count() >= 3
    assert "$" not in answer.locator("p").first.inner_text()
    page.close()
